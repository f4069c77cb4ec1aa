//! A bar chart of the table, as SVG.

use crate::case::{FLOOR, Theme};
use crate::ours::{DELTA, OURS};
use crate::table::Line;

const WIDTH: usize = 820;
const LEFT: usize = 250;
const BAR: usize = 16;
const ROW: usize = 24;
const HEAD: usize = 46;

/// One panel: bars of one measure, longest = full width.
struct Panel<'a> {
    title: &'a str,
    unit: &'a str,
    bars: Vec<Bar<'a>>,
}

struct Bar<'a> {
    line: &'a Line,
    value: f64,
    /// As much of it as is drawn full; the rest is paler.
    full: f64,
}

impl<'a> Bar<'a> {
    fn new(line: &'a Line, value: f64) -> Self {
        Self { line, value, full: value }
    }

    /// Wall time in `unit`s; what reading back took of it is paler.
    fn wall(line: &'a Line, value: f64) -> Self {
        let full = line.bare.map_or(value, |bare| value * (bare / line.wall).clamp(0.0, 1.0));
        Self { line, value, full }
    }
}

/// Wall and CPU time as multiples of the floor for full installs, memory; time and bytes fetched for updates.
pub fn svg(lines: &[Line], caption: &str) -> String {
    let of = |theme: Theme| lines.iter().filter(move |line| line.theme == theme);
    let full = || of(Theme::Full);
    let panels = [
        Panel {
            title: "Full install: wall time (pale: reading back)",
            unit: "× floor",
            bars: full().filter_map(|line| Some(Bar::wall(line, line.wall_ratio?))).collect(),
        },
        Panel {
            title: "Full install: CPU time",
            unit: "× floor",
            bars: full().filter_map(|line| Some(Bar::new(line, line.cpu_ratio?))).collect(),
        },
        Panel {
            title: "Full install: memory of the largest process",
            unit: "MiB",
            bars: full().map(|line| Bar::new(line, line.rss / f64::from(1 << 20))).collect(),
        },
        Panel {
            title: "Update from v1: bytes fetched",
            unit: "MB",
            bars: of(Theme::Update).map(|line| Bar::new(line, line.fetched / 1e6)).collect(),
        },
        Panel {
            title: "Update from v1: wall time (pale: reading back)",
            unit: "s",
            bars: of(Theme::Update).map(|line| Bar::wall(line, line.wall)).collect(),
        },
    ];
    let mut body = String::new();
    let mut y = 16;
    for panel in panels.iter().filter(|panel| !panel.bars.is_empty()) {
        panel.draw(&mut body, &mut y);
    }
    y += 20;
    body += &format!("<text x=\"16\" y=\"{y}\" class=\"unit\">{}</text>\n", escaped(caption));
    let height = y + 16;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <style>.title{{font-weight:bold}} .unit{{fill:#666}} .bar{{fill:#b8c4d0}} .ours{{fill:#c2571a}} .floor{{fill:#5a6b7b}}</style>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}

impl Panel<'_> {
    fn draw(&self, out: &mut String, y: &mut usize) {
        let longest = self.bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
        *out += &format!(
            "<text x=\"16\" y=\"{}\" class=\"title\">{}<tspan class=\"unit\" dx=\"8\">{}</tspan></text>\n",
            *y + 16,
            escaped(self.title),
            escaped(self.unit)
        );
        for (n, Bar { line, value, full }) in self.bars.iter().enumerate() {
            let top = *y + HEAD - 18 + n * ROW;
            let class = match line.contender.as_str() {
                OURS | DELTA => "ours",
                FLOOR => "floor",
                _ => "bar",
            };
            let room = (WIDTH - LEFT - 90) as f64;
            let [long, dark] = [value, full].map(|value| (value / longest * room).max(1.0));
            let label = format!("{}, {} ({})", line.contender, line.what, line.target);
            let text = top + 12;
            *out += &format!(
                "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\" font-size=\"11\">{}</text>\
                 <rect x=\"{LEFT}\" y=\"{top}\" width=\"{long:.1}\" height=\"{BAR}\" class=\"{class}\" opacity=\"0.4\"/>\
                 <rect x=\"{LEFT}\" y=\"{top}\" width=\"{dark:.1}\" height=\"{BAR}\" class=\"{class}\"/>\
                 <text x=\"{:.1}\" y=\"{text}\">{}</text>\n",
                LEFT - 8,
                escaped(&label),
                LEFT as f64 + long + 6.0,
                short(*value)
            );
        }
        *y += HEAD + self.bars.len() * ROW;
    }
}

/// Three digits that matter.
fn short(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(contender: &str, theme: Theme, wall_ratio: f64) -> Line {
        Line {
            contender: contender.into(),
            what: "a <way>".into(),
            target: "file".into(),
            theme,
            wall: wall_ratio,
            wall_ratio: Some(wall_ratio),
            bare: None,
            bare_ratio: None,
            cpu: 1.0,
            cpu_ratio: None,
            rss: 1e6,
            read: 0.0,
            disk_read: 0.0,
            disk_written: 0.0,
            fetched: 5e6,
            requests: 0.0,
            steps: Vec::new(),
        }
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let text = svg(&[line("floor", Theme::Full, 1.0), line("rauc", Theme::Full, 4.0)], "one machine");
        assert!(text.contains("width=\"480.0\"") && text.contains("width=\"120.0\""), "{text}");
        assert!(text.contains("a &lt;way&gt;") && text.contains("one machine"));
        assert!(!text.contains("CPU time") && !text.contains("bytes fetched"), "panels without values are left out");
        assert_eq!(text.matches("<text").count(), text.matches("</text>").count());
    }

    #[test]
    fn what_reading_back_took_is_paler() {
        let ours = Line { bare: Some(1.0), ..line("ours", Theme::Full, 2.0) };
        let text = svg(&[ours], "");
        assert!(text.contains("width=\"480.0\" height=\"16\" class=\"ours\" opacity"), "{text}");
        assert!(text.contains("width=\"240.0\" height=\"16\" class=\"ours\"/>"), "{text}");
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!([0.5, 1.234, 12.34, 330.4].map(short), ["0.50", "1.23", "12.3", "330"]);
    }
}
