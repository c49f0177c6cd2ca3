//! The sources of annotations about a host: procfs, `TCP_INFO` and SNMP in, named values out.
//!
//! Parsers are pure functions of text or bytes; the readers that open files stand beside them. No
//! pump reads a source while it moves a block: [`annotator`] has the threads that do. A source that
//! cannot be read yields an annotation too, `error.CLASS`, whose text names it and the reason.

pub mod annotator;
pub mod ber;
pub mod procfs;
pub mod snmp;
pub mod tcp;

use crate::annotation::{AnnotationValue, HostAnnotation};

/// The values of one reading of one class.
#[derive(Debug, Default)]
pub struct Readings(Vec<HostAnnotation>);

impl Readings {
    /// Appends a number, unless it is `None`.
    pub fn number(&mut self, name: impl Into<String>, number: Option<f64>) {
        if let Some(number) = number {
            self.push(name.into(), AnnotationValue::Number(number));
        }
    }

    /// Appends a text.
    pub fn text(&mut self, name: impl Into<String>, text: impl Into<String>) {
        self.push(name.into(), AnnotationValue::Text(text.into()));
    }

    /// Appends `error.WORD`, the failure of a source of the class called `word`; only the first is
    /// kept.
    pub fn error(&mut self, word: &str, text: impl Into<String>) {
        let name = format!("error.{word}");
        if self.0.iter().all(|annotation| annotation.name != name) {
            self.text(name, text);
        }
    }

    fn push(&mut self, name: String, value: AnnotationValue) {
        self.0.push(HostAnnotation { name, value });
    }

    /// Returns the annotations in the order of their appending.
    pub fn annotations(self) -> Vec<HostAnnotation> {
        self.0
    }
}
