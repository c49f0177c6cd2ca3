//! NodeAnnotations about a host: procfs, `TCP_INFO` and SNMP in, named values out.
//!
//! Parsers are pure functions of text or bytes; the readers that open files stand beside them. Nothing here is called by a
//! pump while it moves a block: see [`node::annotator`](crate::node::annotator). A source that cannot be read is a fact too,
//! `error.<class>`, whose text says which and why.

pub mod ber;
pub mod procfs;
pub mod snmp;
pub mod tcp;

use crate::annotation::{AnnotationValue, Classes, HostAnnotation};

/// What one reading of one class has to tell.
#[derive(Debug, Default)]
pub struct Told(Vec<HostAnnotation>);

impl Told {
    /// A number; `None` is not told.
    pub fn number(&mut self, name: impl Into<String>, number: Option<f64>) {
        if let Some(number) = number {
            self.push(name.into(), AnnotationValue::Number(number));
        }
    }

    /// A text.
    pub fn text(&mut self, name: impl Into<String>, text: impl Into<String>) {
        self.push(name.into(), AnnotationValue::Text(text.into()));
    }

    /// That a source of `class` failed; the first failure is told.
    pub fn error(&mut self, class: Classes, text: impl Into<String>) {
        let name = format!("error.{class}");
        if self.0.iter().all(|annotation| annotation.name != name) {
            self.text(name, text);
        }
    }

    fn push(&mut self, name: String, value: AnnotationValue) {
        self.0.push(HostAnnotation { name, value });
    }

    /// In the order told.
    pub fn annotations(self) -> Vec<HostAnnotation> {
        self.0
    }
}
