//! How the demo looks on a terminal.

/// Begins a part.
pub fn step(title: &str) {
    println!("\n\x1b[1m==> {title}\x1b[0m");
}

/// One sentence.
pub fn say(text: &str) {
    println!("{text}");
}

/// Something quoted: output of a command, a table, a hit.
pub fn show(text: &str) {
    for line in text.trim_end().lines() {
        println!("    {line}");
    }
}

/// Columns as wide as their widest cell.
pub fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let head = head.iter().map(|cell| (*cell).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        cells.join("   ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["long-name".to_owned(), "1".to_owned()]];
        assert_eq!(table(&["A", "B"], rows), "A           B\nlong-name   1");
    }
}
