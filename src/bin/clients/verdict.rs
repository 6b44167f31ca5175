//! Checks with their results, and the table of results.

use std::time::{Duration, Instant};

use super::{
    figures::{Table, milliseconds},
    line::{Line, Mark},
    stage::Stage,
};

/// The result of a check. The text says what was observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed(String),
    Failed(String),
    Skipped(String),
}

/// The return value of a check: the observation, or why it failed.
pub(crate) type Outcome = Result<String, String>;

/// The results so far.
#[derive(Debug, Default)]
pub(crate) struct Verdicts(Vec<(String, Verdict, Duration)>);

impl Verdicts {
    /// Runs a check and prints its result.
    pub(crate) fn check(&mut self, stage: &Stage, name: &str, check: impl FnOnce() -> Outcome) {
        stage.heading(name);
        if stage.stop.is_set() {
            return self.0.push((name.into(), Verdict::Skipped("interrupted".into()), Duration::ZERO));
        }
        let begun = Instant::now();
        let verdict = match check() {
            Ok(seen) => {
                stage.good(format!("PASSED: {seen}"));
                Verdict::Passed(seen)
            }
            Err(why) => {
                stage.bad(format!("FAILED: {why}"));
                Verdict::Failed(why)
            }
        };
        self.0.push((name.to_owned(), verdict, begun.elapsed()));
    }

    /// Records a check that cannot run here.
    pub(crate) fn skip(&mut self, stage: &Stage, name: &str, why: &str) {
        stage.heading(name);
        stage.warning(format!("SKIPPED: {why}"));
        self.0.push((name.to_owned(), Verdict::Skipped(why.to_owned()), Duration::ZERO));
    }

    /// Whether there were checks and none failed. Interrupted checks have not passed.
    pub(crate) fn all_passed(&self, stage: &Stage) -> bool {
        let passed = |verdict: &Verdict| matches!(verdict, Verdict::Passed(_));
        let failed = |verdict: &Verdict| matches!(verdict, Verdict::Failed(_));
        !stage.stop.is_set()
            && self.0.iter().any(|(_, verdict, _)| passed(verdict))
            && !self.0.iter().any(|(_, verdict, _)| failed(verdict))
    }

    /// Prints the table.
    pub(crate) fn print(&self, stage: &Stage) {
        let mut table = Table::new(&["check", "verdict", "took", "what was seen"]).left(3);
        for (name, verdict, took) in &self.0 {
            let (word, seen) = match verdict {
                Verdict::Passed(seen) => ("passed", seen),
                Verdict::Failed(why) => ("FAILED", why),
                Verdict::Skipped(why) => ("skipped", why),
            };
            table.row(vec![name.clone(), word.to_owned(), milliseconds(Some(*took)), seen.clone()]);
        }
        stage.heading("Summary");
        for (number, row) in table.to_string().lines().enumerate() {
            // Under the header and its line.
            let verdict = number.checked_sub(2).and_then(|at| self.0.get(at)).map(|(_, verdict, _)| verdict);
            stage.say(&match verdict {
                Some(Verdict::Passed(_)) => Line::good(row).marked(Mark::None),
                Some(Verdict::Failed(_)) => Line::bad(row).marked(Mark::None),
                Some(Verdict::Skipped(_)) => Line::warning(row).marked(Mark::None),
                None => Line::plain(row),
            });
        }
    }
}
