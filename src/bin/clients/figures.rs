//! Measurements and tables.

use std::{fmt, time::Duration};

/// Measured times.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times(Vec<Duration>);

/// Number of kept times: enough for a percentile, and above any practical number.
const MAX_TIMES: usize = 100_000;

impl Times {
    pub(crate) fn push(&mut self, time: Duration) {
        if self.0.len() < MAX_TIMES {
            self.0.push(time);
        }
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        other.0.iter().for_each(|time| self.push(*time));
    }

    /// The percentile. `None`: nothing was measured.
    pub(crate) fn percentile(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * percent).div_ceil(100).max(1) - 1;
        sorted.get(at).copied()
    }
}

/// A time in milliseconds in readable form.
pub(crate) fn milliseconds(time: Option<Duration>) -> String {
    match time {
        Some(time) => format!("{:.1} ms", time.as_secs_f64() * 1_000.0),
        None => "-".to_owned(),
    }
}

/// Rows under a header; columns are as wide as necessary. Numbers are right-aligned, the first column is
/// left-aligned.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    /// Left-aligned columns.
    left: Vec<usize>,
}

impl Table {
    pub(crate) fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|&cell| cell.to_owned()).collect()], left: vec![0] }
    }

    /// Left-aligns one more column.
    pub(crate) fn left(mut self, column: usize) -> Self {
        self.left.push(column);
        self
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.rows[0].len()).map(width).collect();
        for (number, row) in self.rows.iter().enumerate() {
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let gap = if column == 0 { "" } else { "  " };
                match self.left.contains(&column) {
                    true if column + 1 == widths.len() => write!(f, "{gap}{cell}")?,
                    true => write!(f, "{gap}{cell:<width$}")?,
                    false => write!(f, "{gap}{cell:>width$}")?,
                }
            }
            if number == 0 {
                let all = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
                write!(f, "\n{}", "─".repeat(all))?;
            }
            if number + 1 < self.rows.len() {
                f.write_str("\n")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let mut times = Times::default();
        assert_eq!(times.percentile(50), None);
        (1..=200).rev().for_each(|ms| times.push(Duration::from_millis(ms)));
        assert_eq!(times.percentile(50), Some(Duration::from_millis(100)));
        assert_eq!(times.percentile(99), Some(Duration::from_millis(198)));
        assert_eq!(times.percentile(100), Some(Duration::from_millis(200)));
        let mut one = Times::default();
        one.push(Duration::from_micros(1_234));
        assert_eq!(milliseconds(one.percentile(99)), "1.2 ms");
    }

    #[test]
    fn a_table_is_aligned() {
        let mut table = Table::new(&["client", "sent"]);
        table.row(vec!["Bob".into(), "12".into()]);
        assert_eq!(table.to_string(), "client  sent\n────────────\nBob       12");
    }
}
