//! A plain table: columns side by side, no lines. Nothing is cut; prose goes last, and is wrapped on a terminal where a view
//! says so.

use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Width, presets::NOTHING,
};

use crate::cli::output::{Look, printable};

pub(super) struct Table {
    table: comfy_table::Table,
    look: Look,
}

impl Table {
    pub(super) fn new(headers: &[&str], look: Look) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        // What is styled is decided here, and never by the library's own look at the terminal.
        table.force_no_tty();
        if look.colours {
            table.enforce_styling();
            table.style_text_only();
        }
        let header = |text: &&str| {
            let cell = Cell::new(text);
            if look.colours { cell.add_attribute(Attribute::Bold) } else { cell }
        };
        table.set_header(headers.iter().map(header).collect::<Vec<_>>());
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self { table, look }
    }

    /// Aligns a column of numbers.
    pub(super) fn right(&mut self, column: usize) -> &mut Self {
        if let Some(column) = self.table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        self
    }

    /// A cell in a colour, where colours are wanted.
    pub(super) fn coloured(&self, text: &str, colour: Option<Color>) -> Cell {
        let cell = Cell::new(printable(text));
        match colour {
            Some(colour) if self.look.colours => cell.fg(colour),
            _ => cell,
        }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.table.add_row(cells);
    }

    /// Leaves out columns, the first of these first, until the rest fits into the terminal.
    pub(super) fn fit(&mut self, optional: &[usize]) {
        let Some(terminal) = self.look.width else { return };
        let mut widths = self.table.column_max_content_widths();
        for (column, width) in widths.iter_mut().enumerate() {
            if self.is_hidden(column) {
                *width = 0;
            }
        }
        for &column in optional {
            // Two spaces stand between columns, none after the last.
            if widths.iter().map(|width| width + 2).sum::<u16>() <= terminal.saturating_add(2) {
                return;
            }
            if let Some(width) = widths.get_mut(column) {
                *width = 0;
            }
            if let Some(column) = self.table.column_mut(column) {
                column.set_constraint(ColumnConstraint::Hidden);
            }
        }
    }

    /// Leaves out a column.
    pub(super) fn hide(&mut self, column: usize) {
        if let Some(column) = self.table.column_mut(column) {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }

    fn is_hidden(&self, column: usize) -> bool {
        self.table.column(column).is_some_and(|column| column.constraint() == Some(&ColumnConstraint::Hidden))
    }

    /// Wraps the last column, so that the table keeps to the terminal's width.
    pub(super) fn wrap_last(&mut self) {
        /// Narrower than this nobody can read it: then the terminal wraps.
        const LEAST: u16 = 10;
        let Some(terminal) = self.look.width else { return };
        let widths = self.table.column_max_content_widths();
        let Some((last, others)) = widths.split_last() else { return };
        let before: u16 =
            others.iter().enumerate().filter(|(column, _)| !self.is_hidden(*column)).map(|(_, width)| width + 2).sum();
        let room = terminal.saturating_sub(before);
        if *last > room
            && room >= LEAST
            && let Some(column) = self.table.column_mut(others.len())
        {
            // The padding counts.
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(room + 2)));
        }
    }

    pub(super) fn text(&self) -> String {
        self.table.trim_fmt() + "\n"
    }
}
