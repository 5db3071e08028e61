//! Tables for the terminal.

use comfy_table::{CellAlignment, Table, presets::NOTHING};

/// A table without lines whose columns, except for the first, are aligned to the right.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
