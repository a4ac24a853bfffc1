//! Trees and tables as text.

/// A line with lines below it.
#[derive(Clone, Debug, Default)]
pub struct Node {
    line: String,
    below: Vec<Node>,
}

impl Node {
    /// A line with nothing below it.
    pub fn new(line: impl Into<String>) -> Self {
        Self { line: line.into(), below: Vec::new() }
    }

    /// A line over others.
    pub fn over(line: impl Into<String>, below: Vec<Self>) -> Self {
        Self { line: line.into(), below }
    }

    /// The tree with its branches drawn.
    pub fn draw(&self) -> String {
        let mut text = format!("{}\n", self.line);
        self.branches("", &mut text);
        text
    }

    fn branches(&self, margin: &str, text: &mut String) {
        for (index, node) in self.below.iter().enumerate() {
            let last = index + 1 == self.below.len();
            let (branch, rest) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            text.push_str(&format!("{margin}{branch}{}\n", node.line));
            node.branches(&format!("{margin}{rest}"), text);
        }
    }
}

/// Rows under their headings, each column as wide as its widest cell.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([headings[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    let mut text = line(&mut headings.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_are_drawn() {
        let tree = Node::over("a", vec![Node::over("b", vec![Node::new("c")]), Node::new("d")]);
        assert_eq!(tree.draw(), "a\n├─ b\n│  └─ c\n└─ d\n");
    }

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let rows =
            vec![vec!["shop-main-1".to_owned(), "7".to_owned()], vec!["x".to_owned(), "12".to_owned()]];
        assert_eq!(table(&["POD", "N"], &rows), "POD          N\nshop-main-1  7\nx            12\n");
    }
}
