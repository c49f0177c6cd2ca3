//! Files of options that SIGHUP reads again: all of them take effect, or none.

use crate::cli::{Common, PROGRAM};
use crate::collect::latest::LatestReport;
use crate::commands::prepare::rules;
use crate::node::link_auth::{self, Keys};
use crate::node::Node;
use crate::output::print_error;
use std::path::Path;
use std::sync::Arc;

/// Puts what was read in force; it cannot fail.
pub(crate) type Apply = Box<dyn FnOnce() + Send>;
type Read = Box<dyn Fn() -> Result<Apply, String> + Send>;

/// The files that are read again, with the names of their options.
#[derive(Default)]
pub(crate) struct Reload(Vec<(&'static str, Read)>);

impl Reload {
    /// Adds the file of an option; `read` returns the change, or the reason against it.
    #[must_use]
    pub(crate) fn with(
        mut self,
        option: &'static str,
        read: impl Fn() -> Result<Apply, String> + Send + 'static,
    ) -> Self {
        self.0.push((option, Box::new(read)));
        self
    }

    /// Adds `--key-file`, if it was given.
    #[must_use]
    pub(crate) fn with_keys(self, common: &Common, keys: &Keys) -> Self {
        let Some(path) = common.key_file.clone() else {
            return self;
        };
        let keys = keys.clone();
        self.with("--key-file", move || {
            check_file(&path)?;
            let (read, keys) = (link_auth::read(&path)?, keys.clone());
            Ok(Box::new(move || keys.set(read)))
        })
    }

    /// Adds `--rules`, if it was given, for the nodes that `nodes` returns.
    #[must_use]
    pub(crate) fn with_rules(
        self,
        common: &Common,
        nodes: impl Fn() -> Vec<RuledNode> + Send + 'static,
    ) -> Self {
        let Some(path) = common.rules.clone() else {
            return self;
        };
        let common = common.clone();
        self.with("--rules", move || {
            check_file(&path)?;
            let rules = rules(&common)?;
            let nodes = nodes();
            Ok(Box::new(move || {
                let asks = rules.iter().any(|rule| !rule.asks.is_empty());
                let rules: Arc<[_]> = rules.into();
                for node in nodes {
                    if asks {
                        node.collector.be_prompt();
                    }
                    node.latest.set_rules(Arc::clone(&rules));
                    node.collector.wake();
                }
            }))
        })
    }

    /// Reads all files, and then puts all in force. One line names the options, or the first error.
    pub(crate) fn run(&self) {
        let read: Result<Vec<Apply>, String> = self.0.iter().map(|(_, read)| read()).collect();
        match read {
            Err(text) => print_error(&format!("{PROGRAM}: reload: {text}; all stays as it was\n")),
            Ok(all) => {
                all.into_iter().for_each(|apply| apply());
                let options: Vec<_> = self.0.iter().map(|(option, _)| *option).collect();
                let options = match options.is_empty() {
                    true => "nothing: no option names a file that is read again".to_owned(),
                    false => options.join(", "),
                };
                print_error(&format!("{PROGRAM}: reloaded {options}\n"));
            }
        }
    }
}

/// The collector of a node, which takes new rules.
pub(crate) struct RuledNode {
    latest: Arc<LatestReport>,
    collector: crate::collect::queue::Collector,
}

impl RuledNode {
    pub(crate) fn of(node: &Node) -> Self {
        Self {
            latest: Arc::clone(&node.latest),
            collector: node.collector.clone(),
        }
    }
}

/// Checks that a file can be read again. A pipe is empty by then, or blocks.
pub(crate) fn check_file(path: &Path) -> Result<(), String> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(data) if data.is_file() => Ok(()),
        Ok(_) => Err(format!(
            "{shown} is no regular file and cannot be read again"
        )),
        Err(error) => Err(format!("read {shown}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn one_bad_file_keeps_all_others_from_taking_effect() {
        let count = Arc::new(AtomicUsize::new(0));
        let good = |count: &Arc<AtomicUsize>| {
            let count = Arc::clone(count);
            move || -> Result<Apply, String> {
                let count = Arc::clone(&count);
                Ok(Box::new(move || {
                    let _ = count.fetch_add(1, Ordering::Relaxed);
                }))
            }
        };
        let reload = Reload::default()
            .with("--a", good(&count))
            .with("--b", good(&count));
        reload.run();
        assert_eq!(count.load(Ordering::Relaxed), 2);
        reload.with("--c", || Err("no".into())).run();
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }
}
