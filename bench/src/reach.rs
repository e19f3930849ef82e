//! What a figure is to reach, and by how much it falls short.

use crate::pair::System;
use crate::table::{Better, Row, number};

/// What the median of a row is to reach.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Reach {
    /// Nothing: it is only reported.
    Nothing,
    /// Less than this, in the row's unit.
    Below(f64),
    /// At least this, in the row's unit.
    AtLeast(f64),
    /// None at all.
    Zero,
    /// So many times as good as Redis, and as Redis tuned, round by round.
    Times {
        /// Redis; `None` where only the tuned one counts.
        redis: Option<f64>,
        /// Redis tuned.
        tuned: f64,
    },
}

impl Reach {
    /// In words; empty for nothing.
    pub fn words(self) -> String {
        match self {
            Reach::Nothing => String::new(),
            Reach::Below(most) => format!("< {most}"),
            Reach::AtLeast(least) => format!("≥ {least}"),
            Reach::Zero => "0".to_owned(),
            Reach::Times { redis, tuned } => {
                let redis = redis.map_or(String::new(), |times| format!("{times} × Redis, "));
                format!("as good as {redis}{tuned} × tuned")
            }
        }
    }

    /// Whether a row's medians reach it: `yes`, by what part not, or empty where there is nothing to say.
    pub fn verdict(self, row: &Row) -> String {
        let own = row.spread(System::Node).map(|spread| spread.median);
        let times = |system, wanted: Option<f64>| {
            let ratio = row.ratio(system)?.median;
            let times = match row.better {
                Better::Higher => ratio,
                Better::Lower => 1.0 / ratio,
            };
            Some(times / wanted?)
        };
        // What was reached as a part of what was wanted; 1 and more is good.
        let part = match self {
            Reach::Nothing => None,
            Reach::Below(most) => own.map(|own| most / own),
            Reach::AtLeast(least) => own.map(|own| own / least),
            Reach::Zero => own.map(|own| if own == 0.0 { 1.0 } else { 0.0 }),
            Reach::Times { redis, tuned } => [
                times(System::RedisDefault, redis),
                times(System::RedisTuned, Some(tuned)),
            ]
            .into_iter()
            .flatten()
            .reduce(f64::min),
        };
        match part {
            None => String::new(),
            Some(part) if part >= 1.0 => "yes".to_owned(),
            Some(part) => format!("**no**, {} × of it", number(part)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;

    fn verdict(better: Better, reach: Reach, own: &[f64], redis: f64, tuned: f64) -> String {
        let mut table = Table::default();
        for own in own {
            for (system, value) in [
                (System::Node, *own),
                (System::RedisDefault, redis),
                (System::RedisTuned, tuned),
            ] {
                table.add("x", ("u", better), reach, system, value);
            }
        }
        reach.verdict(&table.rows[0])
    }

    #[test]
    fn a_shortfall_is_told_as_the_part_that_was_reached() {
        let own = [1.0, 8.0, 9.0];
        let times = Reach::Times {
            redis: Some(2.0),
            tuned: 1.0,
        };
        for (better, reach, redis, tuned, expected) in [
            (Better::Lower, Reach::Below(10.0), 1.0, 1.0, "yes"),
            (
                Better::Lower,
                Reach::Below(4.0),
                1.0,
                1.0,
                "**no**, 0.50 × of it",
            ),
            (Better::Higher, Reach::AtLeast(8.0), 1.0, 1.0, "yes"),
            (
                Better::Higher,
                Reach::AtLeast(16.0),
                1.0,
                1.0,
                "**no**, 0.50 × of it",
            ),
            (Better::Lower, Reach::Zero, 1.0, 1.0, "**no**, 0 × of it"),
            (Better::Lower, Reach::Nothing, 1.0, 1.0, ""),
            (Better::Higher, times, 4.0, 8.0, "yes"),
            (Better::Higher, times, 4.0, 10.0, "**no**, 0.80 × of it"),
            (Better::Lower, times, 16.0, 8.0, "yes"),
            (Better::Lower, times, 12.0, 8.0, "**no**, 0.75 × of it"),
        ] {
            assert_eq!(
                verdict(better, reach, &own, redis, tuned),
                expected,
                "{reach:?}"
            );
        }
    }
}
