//! The figures as a picture: one group of bars per row, each row on a scale of its own, ranges as whiskers.

use std::fmt::Write;

use crate::pair::System;
use crate::table::{Better, Row, Table, number};

const WIDTH: f64 = 990.0;
const LEFT: f64 = 420.0;
const BARS: f64 = 400.0;
const BAR: f64 = 14.0;
const GROUP: f64 = 3.0 * BAR + 18.0;
const TOP: f64 = 64.0;

fn colour(system: System) -> &'static str {
    match system {
        System::RedisDefault => "#c9c9c9",
        System::RedisTuned => "#8c8c8c",
        System::Node => "#2563a8",
    }
}

/// The picture.
pub fn svg(table: &Table, title: &str) -> String {
    let height = TOP + table.rows.len() as f64 * GROUP + 12.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    text(
        &mut out,
        12.0,
        24.0,
        "font-size=\"16\" font-weight=\"bold\"",
        title,
    );
    for (n, system) in System::ALL.into_iter().enumerate() {
        let x = 12.0 + 120.0 * n as f64;
        bar(&mut out, x, 36.0, 12.0, colour(system));
        text(&mut out, x + 18.0, 47.0, "", system.name());
    }
    text(
        &mut out,
        380.0,
        47.0,
        "fill=\"#666666\"",
        "median; line: smallest to largest; each row on its own scale",
    );
    for (n, row) in table.rows.iter().enumerate() {
        group(&mut out, TOP + n as f64 * GROUP, row);
    }
    out.push_str("</svg>\n");
    out
}

fn group(out: &mut String, y: f64, row: &Row) {
    let better = match row.better {
        Better::Higher => "more is better",
        Better::Lower => "less is better",
    };
    text(out, 12.0, y + 16.0, "", &row.what);
    let unit = format!("{}, {better}", row.unit);
    text(out, 12.0, y + 32.0, "fill=\"#666666\"", &unit);
    let spreads = System::ALL.map(|system| (system, row.spread(system)));
    let most = spreads
        .iter()
        .filter_map(|(_, spread)| Some(spread.as_ref()?.max));
    let most = most.fold(0.0, f64::max);
    let x = |value: f64| {
        if most > 0.0 {
            (value / most).max(0.0) * BARS
        } else {
            0.0
        }
    };
    for (n, (system, spread)) in spreads.into_iter().enumerate() {
        let y = y + 3.0 + n as f64 * BAR;
        let Some(spread) = spread else { continue };
        bar(out, LEFT, y, x(spread.median).max(1.0), colour(system));
        let (from, to, middle) = (LEFT + x(spread.min), LEFT + x(spread.max), y + 6.0);
        // A string takes everything.
        let _ = writeln!(
            out,
            "<path d=\"M{from:.1} {middle}H{to:.1}\" stroke=\"#111111\" stroke-width=\"1.5\"/>"
        );
        text(
            out,
            to + 6.0,
            y + 10.0,
            "font-size=\"11\"",
            &number(spread.median),
        );
    }
}

fn bar(out: &mut String, x: f64, y: f64, width: f64, colour: &str) {
    let height = BAR - 2.0;
    let _ = writeln!(
        out,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{colour}\"/>"
    );
}

fn text(out: &mut String, x: f64, y: f64, style: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y}\" {style}>{text}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::Reach;

    #[test]
    fn every_row_is_drawn_and_nothing_breaks_the_markup() {
        let mut table = Table::default();
        for system in System::ALL {
            table.add(
                "a < b & c",
                ("ms", Better::Lower),
                Reach::Nothing,
                system,
                0.0,
            );
            table.add(
                "writes",
                ("1/s", Better::Higher),
                Reach::Nothing,
                system,
                5.0,
            );
        }
        let picture = svg(&table, "t");
        assert!(picture.contains("a &lt; b &amp; c"));
        assert_eq!(picture.matches("<path").count(), 6);
        assert!(!picture.contains("NaN"));
    }
}
