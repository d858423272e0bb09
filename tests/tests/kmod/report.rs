//! [`Report`]: what the machine printed, taken apart.

use std::fmt;

/// The prefix of init.sh's lines for us.
const MARK: &str = "@ ";

/// What the kernel's log has where something is wrong with the kernel. A fault of a program that it reports is nothing wrong.
const SUSPECT: [&str; 12] = [
    "BUG",
    "WARNING",
    "Oops",
    "Call Trace",
    "general protection",
    "Bad page",
    "Bad rss-counter",
    "refcount",
    "possible circular locking",
    "suspicious RCU",
    "KASAN",
    "blocked for more than",
];

/// The output of one run.
pub struct Report {
    /// The lines of the program.
    pub printed: String,
    /// The lines for us, without their mark.
    marked: Vec<String>,
    /// The kernel's log since the module was loaded.
    log: String,
}

impl Report {
    /// Takes apart what the console printed.
    pub fn parse(console: &str) -> Self {
        let (before, log) = console.split_once("@ log\n").unwrap_or((console, ""));
        let is_marked = |line: &&str| line.starts_with(MARK);
        let lines = |marked: bool| before.lines().filter(move |line| is_marked(line) == marked);
        Self {
            printed: lines(false).collect::<Vec<_>>().join("\n"),
            marked: lines(true)
                .map(|line| line[MARK.len()..].to_owned())
                .collect(),
            log: log.to_owned(),
        }
    }

    /// Whether a line for us is `line`.
    pub fn says(&self, line: &str) -> bool {
        self.marked.iter().any(|marked| marked == line)
    }

    /// The value in the line for us that begins with `name`.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.marked
            .iter()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
    }

    /// The lines of the kernel's log that tell of something wrong, or a line that says that the log is not there.
    pub fn suspect_log_lines(&self) -> Vec<&str> {
        if !self.log.contains("@ end") {
            return vec!["the log is not complete"];
        }
        let is_suspect = |line: &&str| SUSPECT.iter().any(|word| line.contains(word));
        self.log.lines().filter(is_suspect).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let marked = self.marked.join("\n");
        write!(f, "{}\n{marked}\n{}", self.printed, self.log)
    }
}

#[test]
fn a_report_is_taken_apart() {
    let console =
        "[0.1] boot\n@ loaded\nok one\n@ taint 12288\n@ log\n[1] @ begin\n[2] BUG: bad\n@ end\n";
    let report = Report::parse(console);
    assert_eq!(report.printed, "[0.1] boot\nok one");
    assert!(report.says("loaded") && !report.says("unloaded"));
    assert_eq!(report.value("taint"), Some("12288"));
    assert_eq!(report.suspect_log_lines(), ["[2] BUG: bad"]);
}

#[test]
fn a_log_that_breaks_off_is_suspect() {
    let report = Report::parse("@ loaded\n@ log\n[1] @ begin\n");
    assert_eq!(report.suspect_log_lines().len(), 1);
}
