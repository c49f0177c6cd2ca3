//! Facts about a host: procfs, `TCP_INFO` and SNMP in, named values out.
//!
//! Parsers are pure functions of text or bytes; the readers that open files stand beside them. Nothing here is called by a
//! pump while it moves a block: see [`node::annotator`](crate::node::annotator). A source that cannot be read is a fact too,
//! `error.<class>`, whose text says which and why.

pub mod ber;
pub mod procfs;
pub mod snmp;
pub mod tcp;

use crate::annotation::{Classes, Fact, FactValue};

/// What one reading of one class has to tell.
#[derive(Debug, Default)]
pub struct Told(Vec<Fact>);

impl Told {
    /// A number; `None` is not told.
    pub fn number(&mut self, name: impl Into<String>, number: Option<f64>) {
        if let Some(number) = number {
            self.push(name.into(), FactValue::Number(number));
        }
    }

    /// A text.
    pub fn text(&mut self, name: impl Into<String>, text: impl Into<String>) {
        self.push(name.into(), FactValue::Text(text.into()));
    }

    /// That a source of `class` failed; the first failure is told.
    pub fn error(&mut self, class: Classes, text: impl Into<String>) {
        let name = format!("error.{class}");
        if self.0.iter().all(|fact| fact.name != name) {
            self.text(name, text);
        }
    }

    fn push(&mut self, name: String, value: FactValue) {
        self.0.push(Fact { name, value });
    }

    /// In the order told.
    pub fn facts(self) -> Vec<Fact> {
        self.0
    }
}
