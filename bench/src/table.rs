//! Medians, and tables of them.

use crate::case::{Theme, floor_of};
use crate::measure::Sample;
use crate::rounds::Measured;

/// One line of a table: medians over the rounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Who.
    pub contender: String,
    /// What it does.
    pub what: String,
    /// Where to.
    pub target: String,
    /// Which table.
    pub theme: Theme,
    /// Seconds.
    pub wall: f64,
    /// Median over the rounds of the ratio to the same round's floor; `None` where no floor was run.
    pub wall_ratio: Option<f64>,
    /// Seconds, reading back left out; where that was told of.
    pub bare: Option<f64>,
    /// As `wall_ratio`.
    pub bare_ratio: Option<f64>,
    /// Seconds.
    pub cpu: f64,
    /// As `wall_ratio`.
    pub cpu_ratio: Option<f64>,
    /// Bytes.
    pub rss: f64,
    /// Bytes.
    pub read: f64,
    /// Bytes.
    pub disk_read: f64,
    /// Bytes.
    pub disk_written: f64,
    /// Bytes.
    pub fetched: f64,
    /// How many; none where no server was asked.
    pub requests: f64,
    /// Steps and their seconds.
    pub steps: Vec<(String, f64)>,
}

/// The middle value; of an even number the mean of the two in the middle. Zero of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The lines of all cases that were measured.
pub fn lines(all: &[Measured]) -> Vec<Line> {
    let cases: Vec<_> = all.iter().map(|measured| measured.case.clone()).collect();
    let measured = all.iter().filter(|measured| !measured.samples.is_empty());
    measured
        .map(|measured| {
            let floor = floor_of(&cases, &measured.case);
            let floor = floor.and_then(|floor| all.iter().find(|other| other.case.name() == floor.name()));
            line(measured, floor.map(|floor| floor.samples.as_slice()))
        })
        .collect()
}

fn line(measured: &Measured, floor: Option<&[Sample]>) -> Line {
    let samples = &measured.samples;
    let of = |value: fn(&Sample) -> f64| median(samples.iter().map(value));
    // Of what a sample may lack.
    let all = |values: Vec<f64>| (!values.is_empty()).then(|| median(values));
    let ratio = |own: fn(&Sample) -> Option<f64>, floors: fn(&Sample) -> f64| {
        let pairs = samples.iter().zip(floor?);
        all(pairs.filter_map(|(sample, floor)| Some(own(sample)? / floors(floor))).collect())
    };
    let names = samples.first().map(|sample| sample.steps.as_slice()).unwrap_or_default();
    let steps = names.iter().enumerate().map(|(n, (name, _))| {
        (name.clone(), median(samples.iter().filter_map(|sample| sample.steps.get(n).map(|(_, time)| *time))))
    });
    Line {
        contender: measured.case.contender.to_owned(),
        what: measured.case.what.to_owned(),
        target: measured.case.target.name().to_owned(),
        theme: measured.case.theme,
        wall: of(|s| s.wall),
        wall_ratio: ratio(|s| Some(s.wall), |s| s.wall),
        bare: all(samples.iter().filter_map(Sample::without_read_back).collect()),
        bare_ratio: ratio(Sample::without_read_back, |s| s.wall),
        cpu: of(|s| s.cpu),
        cpu_ratio: ratio(|s| Some(s.cpu), |s| s.cpu),
        rss: of(|s| s.rss as f64),
        read: of(|s| s.read as f64),
        disk_read: of(|s| s.disk_read as f64),
        disk_written: of(|s| s.disk_written as f64),
        fetched: of(|s| s.fetched as f64),
        requests: of(|s| s.requests as f64),
        steps: steps.collect(),
    }
}

const COLUMNS: usize = 14;
const HEADER: [&str; COLUMNS] = [
    "contender",
    "to",
    "wall s",
    "× floor",
    "no read-back s",
    "× floor",
    "CPU s",
    "× floor",
    "RSS MiB",
    "read MB",
    "from disk MB",
    "written MB",
    "fetched MB",
    "requests",
];

/// The lines as a Markdown table whose columns stand below one another.
pub fn markdown(lines: &[&Line]) -> String {
    let mega = |bytes: f64| format!("{:.1}", bytes / 1e6);
    let times = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.2}"));
    let mut rows = vec![HEADER.map(str::to_owned)];
    rows.extend(lines.iter().map(|line| {
        [
            format!("{}, {}", line.contender, line.what),
            line.target.clone(),
            format!("{:.2}", line.wall),
            times(line.wall_ratio),
            times(line.bare),
            times(line.bare_ratio),
            format!("{:.2}", line.cpu),
            times(line.cpu_ratio),
            format!("{:.1}", line.rss / f64::from(1 << 20)),
            mega(line.read),
            mega(line.disk_read),
            mega(line.disk_written),
            mega(line.fetched),
            if line.requests > 0.0 { format!("{:.0}", line.requests) } else { "–".to_owned() },
        ]
    }));
    aligned(&rows)
}

fn aligned(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEADER.len()).map(width).collect();
    let mut text = String::new();
    for (n, row) in rows.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            text += &if column < 2 { format!("| {cell:<width$} ") } else { format!("| {cell:>width$} ") };
        }
        text += "|\n";
        if n == 0 {
            for (column, width) in widths.iter().enumerate() {
                text += &format!("|{}{}", "-".repeat(width + 1), if column < 2 { "-" } else { ":" });
            }
            text += "|\n";
        }
    }
    text
}

/// Where ours spends its time: one line for each case that told of steps.
pub fn steps(lines: &[Line]) -> String {
    let mut text = String::new();
    for line in lines.iter().filter(|line| !line.steps.is_empty()) {
        let steps: Vec<_> = line.steps.iter().map(|(name, time)| format!("{name} {time:.2} s")).collect();
        text += &format!("{}, {} ({}): {}\n", line.contender, line.what, line.target, steps.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Case, Fetched, Target};

    fn measured(contender: &'static str, walls: &[f64]) -> Measured {
        let case = Case {
            contender,
            what: "x",
            theme: Theme::Full,
            target: Target::File,
            reset: Vec::new(),
            warm: Vec::new(),
            command: Vec::new(),
            flush: "/slot".into(),
            fetched: Fetched::Served,
            check: Vec::new(),
        };
        let sample = |wall: &f64| Sample {
            wall: *wall,
            cpu: 2.0 * wall,
            rss: 3 << 20,
            fetched: 1_500_000,
            requests: 12,
            steps: vec![("write".into(), wall / 2.0), ("read-back".into(), wall / 4.0)],
            ..Sample::default()
        };
        Measured { case, samples: walls.iter().map(sample).collect(), failed: None }
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median([7.0]), 7.0);
        assert_eq!(median([]), 0.0);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine was slow in the second round, for both alike.
        let all = [measured("floor", &[1.0, 10.0, 1.0]), measured("ours", &[2.0, 20.0, 3.0])];
        let lines = lines(&all);
        assert_eq!((lines[1].wall, lines[1].wall_ratio), (3.0, Some(2.0)));
        assert_eq!(lines[0].wall_ratio, Some(1.0));
    }

    #[test]
    fn without_a_floor_there_is_no_ratio() {
        let mut failed = measured("floor", &[]);
        failed.failed = Some("no zstd".into());
        let lines = lines(&[failed, measured("ours", &[2.0])]);
        assert_eq!(lines.len(), 1, "what was not measured has no line");
        assert_eq!(lines[0].wall_ratio, None);
    }

    #[test]
    fn the_table_has_its_columns_below_one_another() {
        let lines = lines(&[measured("floor", &[1.0]), measured("ours", &[2.0])]);
        let text = markdown(&lines.iter().collect::<Vec<_>>());
        let widths: Vec<_> = text.lines().map(|line| line.chars().count()).collect();
        assert_eq!(widths.len(), 4);
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
        // A quarter of the time went into reading back.
        assert!(text.contains("| ours, x   | file |   2.00 |    2.00 |           1.50 |    1.50 |"), "{text}");
        assert!(text.contains("|     3.0 |"), "{text}");
        assert!(text.lines().last().unwrap().ends_with("|        1.5 |       12 |"), "{text}");
    }

    #[test]
    fn the_ratio_without_reading_back_is_taken_within_a_round() {
        let all = [measured("floor", &[1.0, 10.0, 1.0]), measured("ours", &[2.0, 20.0, 4.0])];
        let ours = &lines(&all)[1];
        assert_eq!((ours.bare, ours.bare_ratio), (Some(3.0), Some(1.5)));
        let mut silent = measured("peer", &[1.0]);
        silent.samples[0].steps.clear();
        assert_eq!(lines(&[silent])[0].bare, None);
        assert_eq!(steps(&lines(&all)[1..]), "ours, x (file): write 2.00 s, read-back 1.00 s\n");
    }
}
