//! What `tidegate profile` took each column for.

use comfy_table::{Cell, Color};

use super::{super::output::printable, Look, NONE, Table};
use crate::monitor::Taken;

/// A row for each column: inputs, then outputs.
pub(in crate::cli) fn taken(columns: &[Taken], look: Look) -> String {
    let mut table = Table::new(&["COLUMN", "OF", "KIND", "VALUES", "MISSING", "WHY"], look);
    table.right(3).right(4);
    for column in columns {
        let colour = match column.kind {
            "nothing" => Some(Color::Red),
            _ if column.warning.is_some() => Some(Color::Yellow),
            _ => None,
        };
        table.row([
            Cell::new(printable(&column.column)),
            Cell::new(column.role.as_str()),
            table.coloured(column.kind, colour),
            Cell::new(column.values.map_or_else(|| NONE.to_owned(), |values| values.to_string())),
            Cell::new(missing(column)),
            Cell::new(printable(&column.why)),
        ]);
    }
    table.text()
}

fn missing(column: &Taken) -> String {
    match column.missing {
        0 => "0".to_owned(),
        missing => format!("{missing} ({:.1} %)", 100.0 * missing as f64 / column.rows.max(1) as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::FeatureRole;

    #[test]
    fn each_column_has_its_kind_and_why() {
        let column = |column: &str, kind, values, missing, why: &str| Taken {
            tensor: "x".into(),
            column: column.into(),
            role: FeatureRole::Input,
            kind,
            values,
            rows: 200,
            missing,
            why: why.into(),
            warning: None,
        };
        let columns = [
            column("age", "numeric", Some(71), 5, "numbers"),
            column("face", "embedding", None, 0, "128 columns, more than 64"),
        ];
        let look = Look { colours: false, width: None };
        assert_eq!(
            taken(&columns, look),
            "COLUMN  OF     KIND       VALUES    MISSING  WHY\n\
             age     input  numeric        71  5 (2.5 %)  numbers\n\
             face    input  embedding       -          0  128 columns, more than 64\n"
        );
    }
}
