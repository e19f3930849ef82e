//! Figures and what is made of them.

use crate::pair::System;
use crate::reach::Reach;

/// Which way is better.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Better {
    /// More.
    Higher,
    /// Less.
    Lower,
}

/// One figure of all systems, one value per round.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// Its unit.
    pub unit: &'static str,
    /// Which way is better.
    pub better: Better,
    /// What is to be reached.
    pub reach: Reach,
    values: [Vec<f64>; 3],
}

/// All figures.
#[derive(Debug, Default)]
pub struct Table {
    /// In the order in which they were measured.
    pub rows: Vec<Row>,
}

/// Minimum, median, maximum.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The one in the middle; of an even number, the lower.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of these; `None` when there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        Some(Spread {
            min: *sorted.first()?,
            median: sorted[(sorted.len() - 1) / 2],
            max: *sorted.last()?,
        })
    }

    /// Such as `2.31 (2.12–2.40)`; without the range when there is none.
    pub fn show(&self) -> String {
        let [min, median, max] = [self.min, self.median, self.max].map(number);
        if min == max {
            median
        } else {
            format!("{median} ({min}–{max})")
        }
    }
}

impl Row {
    /// The values of a system, round by round.
    pub fn of(&self, system: System) -> &[f64] {
        &self.values[place(system)]
    }

    /// The spread of a system's values.
    pub fn spread(&self, system: System) -> Option<Spread> {
        Spread::of(self.of(system))
    }

    /// The node's value divided by `other`'s, round by round.
    pub fn ratio(&self, other: System) -> Option<Spread> {
        let pairs = self.of(System::Node).iter().zip(self.of(other));
        let ratios: Vec<f64> = pairs.map(|(own, other)| own / other).collect();
        Spread::of(&ratios).filter(|spread| spread.max.is_finite())
    }
}

impl Table {
    /// Adds a value of a row, which is made if it is new.
    pub fn add(
        &mut self,
        what: &str,
        (unit, better): (&'static str, Better),
        reach: Reach,
        system: System,
        value: f64,
    ) {
        eprintln!("  {:<12} {what}: {} {unit}", system.name(), number(value));
        let found = self.rows.iter().position(|row| row.what == what);
        let at = found.unwrap_or_else(|| {
            self.rows.push(Row {
                what: what.to_owned(),
                unit,
                better,
                reach,
                values: Default::default(),
            });
            self.rows.len() - 1
        });
        self.rows[at].values[place(system)].push(value);
    }

    /// The median of a system's values in a row.
    pub fn median(&self, what: &str, system: System) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.what == what)?;
        Some(row.spread(system)?.median)
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut out = String::from("| what | unit |");
        for system in System::ALL {
            out.push_str(&format!(" {} |", system.name()));
        }
        out.push_str(
            " ratio to Redis | ratio to Redis tuned | to reach | reached |\n|---|---|---|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let arrow = match row.better {
                Better::Higher => "↑",
                Better::Lower => "↓",
            };
            out.push_str(&format!("| {} | {} {arrow} |", row.what, row.unit));
            let show = |spread: Option<Spread>| spread.map_or("–".to_owned(), |s| s.show());
            for system in System::ALL {
                out.push_str(&format!(" {} |", show(row.spread(system))));
            }
            for system in [System::RedisDefault, System::RedisTuned] {
                out.push_str(&format!(" {} |", show(row.ratio(system))));
            }
            let reach = row.reach;
            out.push_str(&format!(" {} | {} |\n", reach.words(), reach.verdict(row)));
        }
        out
    }
}

fn place(system: System) -> usize {
    match system {
        System::RedisDefault => 0,
        System::RedisTuned => 1,
        System::Node => 2,
    }
}

/// A number with three digits that matter.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 {
        let digits = format!("{value:.0}");
        let (sign, digits) = digits.split_at(usize::from(value < 0.0));
        let mut out = sign.to_owned();
        for (n, digit) in digits.chars().enumerate() {
            if n > 0 && (digits.len() - n) % 3 == 0 {
                out.push(',');
            }
            out.push(digit);
        }
        out
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size == 0.0 {
        "0".to_owned()
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_large_ones_in_groups() {
        for (value, text) in [
            (0.0, "0"),
            (1.234, "1.23"),
            (12.34, "12.3"),
            (-123.4, "-123"),
            (136_000.0, "136,000"),
            (1_000_000.0, "1,000,000"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_row_shows_median_range_and_ratios_round_by_round() {
        let mut table = Table::default();
        let kind = ("writes/s", Better::Higher);
        for (redis, node) in [(10.0, 20.0), (20.0, 60.0), (40.0, 40.0)] {
            let reach = Reach::AtLeast(1.0);
            table.add("x", kind, reach, System::RedisTuned, redis);
            table.add("x", kind, reach, System::Node, node);
        }
        assert_eq!(table.median("x", System::Node), Some(40.0));
        let text = table.markdown();
        let row = "| x | writes/s ↑ | – | 20.0 (10.0–40.0) | 40.0 (20.0–60.0) | – | 2.00 (1.00–3.00) | ≥ 1 | yes |";
        assert!(text.contains(row), "{text}");
    }
}
