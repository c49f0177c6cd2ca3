//! The parser of rules. An error names line, column and the expected words.

use super::{
    Amount, Ask, AskedNode, Clear, Limit, Nodes, PartPattern, Rule, RuleFigure, Statistic, MOST_OF,
    WINDOW,
};
use crate::annotation::Classes;
use crate::decimal::decimal;
use crate::measure::Sla;
use crate::time::SignedNanos;
use std::fmt;
use std::iter::Peekable;
use std::vec::IntoIter;

/// Largest number of rules in a file.
const MOST_RULES: usize = 1000;
/// The words that a rule begins with.
const PARTS: &str = "\"segment\", \"connect\", \"host\", \"behind\", \"server\" or \"total\"";
/// The longest window in blocks.
const LONGEST_WINDOW: u32 = 1_000_000;

/// A syntax error in rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// The words expected there.
    pub expected: String,
    /// The word found; `None` for the end of the line.
    pub found: Option<String>,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            column,
            expected,
            found,
        } = self;
        write!(f, "line {line}, column {column}: expected {expected}, ")?;
        match found {
            Some(found) => write!(f, "found {found:?}"),
            None => f.write_str("found the end of the line"),
        }
    }
}

impl std::error::Error for RuleError {}

/// Parses a file of rules.
///
/// # Errors
///
/// The first syntax error.
pub fn parse(text: &str) -> Result<Vec<Rule>, RuleError> {
    let mut rules = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let mut reader = Reader::new(number, line)?;
        if reader.tokens.peek().is_none() {
            continue;
        }
        if rules.len() == MOST_RULES {
            return Err(reader.wrong(&format!("at most {MOST_RULES} rules")));
        }
        rules.push(reader.rule()?);
    }
    Ok(rules)
}

/// Parses the limits of `--warning` or `--critical` as check_ping has them, `100ms,20%`: the mean
/// of the total, and loss.
///
/// # Errors
///
/// A text that completes the sentence "`--warning 100` ...".
pub fn simple(text: &str, severity: Sla) -> Result<Vec<Rule>, String> {
    let how = "write a span, a share of lost blocks or both: 100ms,20%";
    let mut rules: Vec<Rule> = Vec::new();
    for word in text.split(',') {
        let limit = limit(word.trim());
        let (figure, statistic) = match limit {
            Some(Limit::Absolute(Amount::Span(_))) => {
                (RuleFigure::RoundTrip, Some(Statistic::Mean))
            }
            Some(Limit::Absolute(Amount::Share(_))) => (RuleFigure::Loss, None),
            _ => return Err(format!("has {word:?} for a limit: {how}")),
        };
        if rules.iter().any(|rule| rule.figure == figure) {
            return Err(format!("has two limits of a kind: {how}"));
        }
        rules.extend(limit.map(|limit| Rule {
            line: None,
            part: PartPattern::Total,
            figure,
            statistic,
            limit,
            over: WINDOW,
            hits: 1,
            of: 1,
            clear: Clear::default(),
            severity,
            asks: Vec::new(),
        }));
    }
    Ok(rules)
}

#[derive(Clone, Debug)]
struct Token {
    column: u32,
    text: String,
    /// `true` for a name in quotation marks.
    quoted: bool,
}

struct Reader {
    line: u32,
    end: u32,
    tokens: Peekable<IntoIter<Token>>,
}

impl Reader {
    /// Cuts a line into words. `->`, `>` and `,` are words anywhere outside quotes.
    fn new(line: u32, text: &str) -> Result<Self, RuleError> {
        let chars: Vec<char> = text.chars().collect();
        let column = |at: usize| u32::try_from(at + 1).unwrap_or(u32::MAX);
        let mut tokens = Vec::new();
        let mut at = 0;
        while let Some(&c) = chars.get(at) {
            let start = at;
            let rest = &chars[at..];
            let is_end = |rest: &[char]| {
                rest[0].is_whitespace()
                    || matches!(rest[0], ',' | '"' | '>')
                    || rest.starts_with(&['-', '>'])
            };
            let (text, quoted) = match c {
                _ if c.is_whitespace() => {
                    at += 1;
                    continue;
                }
                '#' => break,
                '"' => {
                    let Some(length) = rest[1..].iter().position(|&c| c == '"') else {
                        return Err(RuleError {
                            line,
                            column: column(chars.len()),
                            expected: "a quotation mark that ends the name".into(),
                            found: None,
                        });
                    };
                    at += length + 2;
                    (rest[1..=length].iter().collect(), true)
                }
                '-' if rest.starts_with(&['-', '>']) => {
                    at += 2;
                    ("->".to_owned(), false)
                }
                ',' | '>' => {
                    at += 1;
                    (c.to_string(), false)
                }
                _ => {
                    let length = (1..rest.len()).find(|&end| is_end(&rest[end..]));
                    let length = length.unwrap_or(rest.len());
                    at += length;
                    (rest[..length].iter().collect(), false)
                }
            };
            tokens.push(Token {
                column: column(start),
                text,
                quoted,
            });
        }
        Ok(Self {
            line,
            end: column(chars.len()),
            tokens: tokens.into_iter().peekable(),
        })
    }

    /// Returns an error at the next word.
    fn wrong(&mut self, expected: &str) -> RuleError {
        let (line, expected) = (self.line, expected.to_owned());
        match self.tokens.peek() {
            Some(token) => RuleError {
                line,
                column: token.column,
                expected,
                found: Some(token.text.clone()),
            },
            None => RuleError {
                line,
                column: self.end,
                expected,
                found: None,
            },
        }
    }

    /// Consumes the next word if it is this one.
    fn takes(&mut self, word: &str) -> bool {
        let is_it = |token: &Token| !token.quoted && token.text == word;
        self.tokens.next_if(is_it).is_some()
    }

    fn word(&mut self, word: &str) -> Result<(), RuleError> {
        if self.takes(word) {
            return Ok(());
        }
        Err(self.wrong(&format!("{word:?}")))
    }

    /// Consumes the next word if `read` accepts it.
    fn read<T>(&mut self, what: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, RuleError> {
        let token = self.tokens.peek().filter(|token| !token.quoted);
        let Some(value) = token.and_then(|token| read(&token.text)) else {
            return Err(self.wrong(what));
        };
        self.tokens.next();
        Ok(value)
    }

    fn name(&mut self, what: &str) -> Result<String, RuleError> {
        let is_name = |token: &Token| {
            token.quoted || !matches!(token.text.as_str(), "->" | ">" | "," | "*" | "here")
        };
        match self.tokens.next_if(is_name) {
            Some(token) => Ok(token.text),
            None => Err(self.wrong(what)),
        }
    }

    fn count(&mut self, most: u32) -> Result<u32, RuleError> {
        self.read(&format!("a number from 1 to {most}"), |text| {
            let number = text.parse().ok()?;
            (1..=most).contains(&number).then_some(number)
        })
    }

    fn rule(&mut self) -> Result<Rule, RuleError> {
        let part = self.part()?;
        let fitting = RuleFigure::ALL.iter().filter(|row| row.0.is_of(&part));
        let fitting: Vec<_> = fitting.map(|row| row.1).collect();
        let fitting = format!("a figure: {}", fitting.join(", "));
        let figure = self.read(&fitting, |text| {
            let known = RuleFigure::ALL.iter().find(|row| row.1 == text)?.0;
            known.is_of(&part).then_some(known)
        })?;
        let statistic = |text: &str| Some(Statistic::ALL.iter().find(|row| row.1 == text)?.0);
        let statistic = if figure.is_delay() {
            self.read("", statistic).ok()
        } else {
            None
        };
        if !self.takes(">") {
            let words = Statistic::ALL.map(|row| row.1).join(", ");
            let what = match (figure.is_delay(), statistic) {
                (true, None) => format!("\">\", or one of {words}"),
                _ => "\">\"".to_owned(),
            };
            return Err(self.wrong(&what));
        }
        let limit = self.limit(figure, figure.has_baseline(&part))?;
        let mut rule = Rule {
            line: Some(self.line),
            part,
            figure,
            statistic,
            limit,
            over: 1,
            hits: 1,
            of: 1,
            clear: Clear::default(),
            severity: Sla::Warning,
            asks: Vec::new(),
        };
        if rule.has_windows() {
            rule.over = WINDOW;
        }
        self.options(&mut rule)?;
        while self.tokens.peek().is_some() {
            let ask = self.ask(figure)?;
            rule.asks.push(ask);
        }
        Ok(rule)
    }

    fn part(&mut self) -> Result<PartPattern, RuleError> {
        if self.takes("total") {
            return Ok(PartPattern::Total);
        }
        if self.takes("server") {
            return Ok(PartPattern::Server);
        }
        for (word, make) in [
            ("host", PartPattern::Host as fn(_) -> _),
            ("behind", PartPattern::Behind),
        ] {
            if self.takes(word) {
                let every = self.takes("*");
                let name = (!every).then(|| self.name("a node's name, or \"*\""));
                return name.transpose().map(make);
            }
        }
        for (word, make) in [
            ("segment", PartPattern::Segment as fn(_) -> _),
            ("connect", PartPattern::Connect),
        ] {
            if self.takes(word) {
                let every = self.takes("*");
                let ends = (!every).then(|| self.ends());
                return ends.transpose().map(make);
            }
        }
        Err(self.wrong(PARTS))
    }

    fn ends(&mut self) -> Result<(String, String), RuleError> {
        let from = self.name("a node's name, or \"*\"")?;
        self.word("->")?;
        Ok((from, self.name("a node's name")?))
    }

    fn options(&mut self, rule: &mut Rule) -> Result<(), RuleError> {
        let mut seen = Vec::new();
        loop {
            let known = ["over", "for", "clear", "warning", "critical"];
            let Some(token) = self.tokens.peek().filter(|token| !token.quoted) else {
                break;
            };
            let Some(option) = known.into_iter().find(|known| token.text == *known) else {
                break;
            };
            // Both words are the severity.
            let kind = option.replace("critical", "warning");
            if seen.contains(&kind) {
                return Err(self.wrong(&format!("no second {kind:?}")));
            }
            if option == "over" && !rule.has_windows() {
                let what = "\"over\" only after a statistic (such as p95), loss or retransmits";
                return Err(self.wrong(what));
            }
            seen.push(kind);
            self.tokens.next();
            match option {
                "over" => rule.over = self.count(LONGEST_WINDOW)?,
                "warning" => rule.severity = Sla::Warning,
                "critical" => rule.severity = Sla::Critical,
                "for" => {
                    rule.hits = self.count(MOST_OF)?;
                    self.word("of")?;
                    let what = format!("a number from {} to {MOST_OF}", rule.hits);
                    let hits = rule.hits;
                    rule.of = self.read(&what, |text| {
                        let of = text.parse().ok()?;
                        (hits..=MOST_OF).contains(&of).then_some(of)
                    })?;
                }
                _ => {
                    rule.clear.after = self.count(LONGEST_WINDOW).ok();
                    if self.takes("below") {
                        let times = rule.figure.has_baseline(&rule.part);
                        let above = self.wrong(&format!("at most the limit, {}", rule.limit));
                        let below = self.limit(rule.figure, times)?;
                        if below > rule.limit {
                            return Err(above);
                        }
                        rule.clear.below = Some(below);
                    } else if rule.clear.after.is_none() {
                        return Err(self.wrong("a number of evaluations, or \"below\""));
                    }
                }
            }
        }
        Ok(())
    }

    fn ask(&mut self, figure: RuleFigure) -> Result<Ask, RuleError> {
        let beyond = if self.takes("beyond") {
            Some(self.limit(figure, true)?)
        } else if self.tokens.peek().is_some_and(|token| token.text == "ask") {
            None
        } else {
            return Err(self.wrong(
                "\"over\", \"for\", \"clear\", \"warning\", \"critical\", \"beyond\" or \"ask\"",
            ));
        };
        self.word("ask")?;
        let words = Classes::ALL.map(|row| row.word).join(", ");
        let what = format!("a class of annotations: all, {words}");
        let class = |text: &str| text.parse::<Classes>().ok().filter(|some| !some.is_empty());
        let mut classes = self.read(&what, class)?;
        while self.takes(",") {
            classes = classes.union(self.read(&what, class)?);
        }
        self.word("at")?;
        if self.takes("*") {
            return Ok(Ask {
                beyond,
                classes,
                at: Nodes::All,
            });
        }
        let mut nodes = Vec::new();
        loop {
            nodes.push(if self.takes("here") {
                AskedNode::Here
            } else {
                AskedNode::Named(self.name("a node's name, \"here\" or \"*\"")?)
            });
            if !self.takes(",") {
                break;
            }
        }
        Ok(Ask {
            beyond,
            classes,
            at: Nodes::Some(nodes),
        })
    }

    fn limit(&mut self, figure: RuleFigure, times: bool) -> Result<Limit, RuleError> {
        if figure == RuleFigure::Retransmits {
            return self.read("a number such as 3", |text| {
                let count: u32 = text.parse().ok()?;
                Some(Limit::Absolute(Amount::Count(count.into())))
            });
        }
        let share = figure == RuleFigure::Loss;
        let what = match (share, times) {
            (true, false) => "a share such as 1%",
            (true, true) => "a share such as 5%, or a multiple such as 2x",
            (false, false) => "a span such as 5ms (units ns, us, ms, s)",
            (false, true) => "a span such as 5ms (units ns, us, ms, s), or a multiple such as 2x",
        };
        self.read(what, |text| match limit(text)? {
            Limit::Times(_) if !times => None,
            Limit::Absolute(Amount::Span(_)) if share => None,
            Limit::Absolute(Amount::Share(_)) if !share => None,
            limit => Some(limit),
        })
    }
}

/// A number with its unit.
fn limit(text: &str) -> Option<Limit> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(end);
    let number = decimal(number)?;
    // Ten years of nanoseconds are exact enough, and no run is longer.
    let span = |factor: f64| {
        let nanos = (number * factor).round();
        (nanos <= 3e17).then_some(Limit::Absolute(Amount::Span(SignedNanos(nanos as i64))))
    };
    match unit {
        "ns" => span(1.0),
        "us" => span(1e3),
        "ms" => span(1e6),
        "s" => span(1e9),
        "%" if number <= 100.0 => Some(Limit::Absolute(Amount::Share(number / 100.0))),
        "x" if number > 0.0 && number <= 1e6 => Some(Limit::Times(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_understood_with_all_that_they_leave_unsaid() {
        let text = r#"
# A comment.
segment B->C  round_trip p95 > 5ms for 3 of 5 warning ask load,tcp at B,C  # another
segment * round_trip>2x for 3 of 5 clear 2 critical ask all at *
segment "my host" -> C forward_excess max > 1.5ms over 100
host C residence p99 > 1ms clear below 500us ask cpu at here beyond 2x ask all at C, "a b"
host * wake_up > 20us clear 3 below 10us
total loss > 1%  beyond 10% ask mib at *
total round_trip mean > 100ms critical
host C increase > 2s
"#;
        let understood = [
            "segment B->C round_trip p95 > 5ms over 20 for 3 of 5 warning ask load,tcp at B,C",
            "segment * round_trip > 2x for 3 of 5 clear 2 critical ask \
                 load,cpu,memory,files,mib,interfaces,tcp,tags,snmp at *",
            "segment \"my host\"->C forward_excess max > 1.5ms over 100 for 1 of 1 warning",
            "host C residence p99 > 1ms over 20 for 1 of 1 clear below 500us warning ask cpu at \
                 here beyond 2x ask load,cpu,memory,files,mib,interfaces,tcp,tags,snmp at C,\"a \
                 b\"",
            "host * wake_up > 20us for 1 of 1 clear 3 below 10us warning",
            "total loss > 1% over 20 for 1 of 1 warning beyond 10% ask mib at *",
            "total round_trip mean > 100ms over 20 for 1 of 1 critical",
            "host C increase > 2s for 1 of 1 warning",
        ];
        let rules = parse(text).unwrap();
        let shown: Vec<_> = rules.iter().map(ToString::to_string).collect();
        assert_eq!(shown, understood);
        assert_eq!(rules[0].line, Some(3));
        // What is shown is read as the same.
        let again = parse(&shown.join("\n")).unwrap();
        for (rule, again) in rules.into_iter().zip(again) {
            assert_eq!(
                Rule { line: None, ..rule },
                Rule {
                    line: None,
                    ..again
                }
            );
        }
    }

    #[test]
    fn an_error_names_the_column_and_what_was_expected() {
        for (line, column, expected, found) in [
            ("link B->C", 1, PARTS, Some("link")),
            ("segment", 8, "a node's name, or \"*\"", None),
            ("segment B C", 11, "\"->\"", Some("C")),
            ("segment B->", 12, "a node's name", None),
            ("segment B-> > 5ms", 13, "a node's name", Some(">")),
            (
                "host C round_trip > 5ms",
                8,
                "a figure: residence, wake_up, \
                 increase",
                Some("round_trip"),
            ),
            (
                "connect A->B round_trip > 5ms",
                14,
                "a figure: increase, delay",
                Some("round_trip"),
            ),
            ("behind", 7, "a node's name, or \"*\"", None),
            (
                "server > 5ms",
                8,
                "a figure: increase, delay, connect",
                Some(">"),
            ),
            (
                "segment * retransmits > 5ms",
                25,
                "a number such as 3",
                Some("5ms"),
            ),
            (
                "total round_trip > 5ms clear below 6ms",
                36,
                "at most the limit, 5ms",
                Some("6ms"),
            ),
            ("total loss p95 > 5%", 12, "\">\"", Some("p95")),
            (
                "total round_trip p96 > 5ms",
                18,
                "\">\", or one of min, mean, p50, p90, p95, p99, \
                 max",
                Some("p96"),
            ),
            (
                "total round_trip p95 > 5",
                24,
                "a span such as 5ms (units ns, us, ms, s)",
                Some("5"),
            ),
            (
                "total round_trip p95 > 2x",
                24,
                "a span such as 5ms (units ns, us, ms, \
                 s)",
                Some("2x"),
            ),
            ("total loss > 5ms", 14, "a share such as 1%", Some("5ms")),
            ("total loss > 101%", 14, "a share such as 1%", Some("101%")),
            (
                "total loss > 5% for 3 of 2",
                26,
                "a number from 3 to 64",
                Some("2"),
            ),
            ("total loss > 5% for 3 in 2", 23, "\"of\"", Some("in")),
            (
                "total loss > 5% for 65 of 99",
                21,
                "a number from 1 to 64",
                Some("65"),
            ),
            (
                "total loss > 5% warning critical",
                25,
                "no second \"warning\"",
                Some("critical"),
            ),
            (
                "total round_trip > 5ms over 3",
                24,
                "\"over\" only after a statistic (such as p95), loss or retransmits",
                Some("over"),
            ),
            (
                "total loss > 5% clear",
                22,
                "a number of evaluations, or \"below\"",
                None,
            ),
            (
                "total loss > 5% soon",
                17,
                "\"over\", \"for\", \"clear\", \"warning\", \
                 \"critical\", \"beyond\" or \"ask\"",
                Some("soon"),
            ),
            (
                "total loss > 5% ask lod at *",
                21,
                "a class of annotations: all, load, cpu, memory, \
                 files, mib, interfaces, tcp, tags, snmp",
                Some("lod"),
            ),
            (
                "total loss > 5% ask load at",
                28,
                "a node's name, \"here\" or \"*\"",
                None,
            ),
            ("total loss > 5% ask load *", 26, "\"at\"", Some("*")),
            (
                "host \"C loss",
                13,
                "a quotation mark that ends the name",
                None,
            ),
        ] {
            let text = format!("\n# first\n{line}\n");
            let error = parse(&text).expect_err(line);
            assert_eq!((error.line, error.column), (3, column), "{line}: {error}");
            assert_eq!(error.expected, expected, "{line}");
            assert_eq!(error.found.as_deref(), found, "{line}");
        }
        let error = parse("total loss > 5").unwrap_err().to_string();
        assert_eq!(
            error,
            "line 1, column 14: expected a share such as 1%, found \"5\""
        );
    }

    #[test]
    fn a_text_cut_anywhere_is_an_error_or_a_rule_but_no_panic() {
        let text = "segment \"ü b\"->C round_trip p95>5ms for 3 of 5 clear 2 below 1x ask \
             load,tcp at B,C beyond 2x ask all at *";
        let mut rules = 0;
        for (end, _) in text.char_indices() {
            rules += usize::from(parse(&text[..end]).is_ok());
            let _ = parse(&text[end..]);
        }
        assert!(rules > 4, "{rules}");
        assert!(parse(&"total loss > 1%\n".repeat(MOST_RULES + 1)).is_err());
    }

    #[test]
    fn the_simple_limits_are_those_of_check_ping() {
        let rules = simple("100ms,20%", Sla::Critical).unwrap();
        let shown: Vec<_> = rules.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "total round_trip mean > 100ms over 20 for 1 of 1 critical",
                "total loss > 20% over 20 for 1 of 1 critical"
            ]
        );
        assert_eq!(simple("0.1s", Sla::Warning).unwrap().len(), 1);
        for text in ["", "100", "2x", "1ms,2ms", "1%,", "5ms 1%"] {
            assert!(simple(text, Sla::Warning).is_err(), "{text}");
        }
    }
}
