//! A small picture of how figures grow, as SVG: panels side by side, the number of things on a logarithmic
//! axis below, the figure from 0 up.

use std::fmt::Write;

/// A picture.
pub struct Plot {
    /// What it shows.
    pub title: &'static str,
    /// What the axis below counts.
    pub x_title: &'static str,
    /// What each panel shows, and its lines.
    pub panels: Vec<(&'static str, Vec<Series>)>,
}

/// One line.
pub struct Series {
    /// What it shows.
    pub name: &'static str,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
}

const PANEL_WIDTH: f64 = 380.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 56.0;
const TOP: f64 = 60.0;
const RIGHT: f64 = 20.0;
const BOTTOM: f64 = 52.0;
const COLOURS: [&str; 3] = ["#0b6e99", "#d9730d", "#5b5b5b"];
/// Lines across a panel.
const STEPS: u32 = 4;

impl Plot {
    /// The picture.
    pub fn to_svg(&self) -> String {
        let width = PANEL_WIDTH * self.panels.len() as f64;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" width=\"{width}\" height=\"{HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"11\" fill=\"#333\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        text(&mut out, (width / 2.0, 20.0), "middle", "#333", self.title);
        for (index, (title, lines)) in self.panels.iter().enumerate() {
            self.panel(&mut out, PANEL_WIDTH * index as f64, title, lines);
        }
        out.push_str("</svg>\n");
        out
    }

    fn panel(&self, out: &mut String, from: f64, title: &str, lines: &[Series]) {
        let points = || lines.iter().flat_map(|line| &line.points);
        let x_min = points().map(|point| point.0).fold(f64::INFINITY, f64::min).log10();
        let x_max = points().map(|point| point.0).fold(1.0, f64::max).log10();
        let y_max = round_up(points().map(|point| point.1).fold(0.0, f64::max));
        let (wide, high) = (PANEL_WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        let x = |value: f64| from + LEFT + wide * (value.log10() - x_min) / (x_max - x_min);
        let y = |value: f64| TOP + high * (1.0 - value / y_max);
        text(out, (from + LEFT, TOP - 22.0), "start", "#333", title);
        text(out, (from + LEFT + wide / 2.0, HEIGHT - 14.0), "middle", "#333", self.x_title);
        for step in 0..=STEPS {
            let value = y_max * f64::from(step) / f64::from(STEPS);
            let at = y(value);
            _ = writeln!(out, "<path d=\"M{:.1} {at:.1}h{wide:.1}\" stroke=\"#ddd\"/>", from + LEFT);
            text(
                out,
                (from + LEFT - 6.0, at + 4.0),
                "end",
                "#333",
                &format!("{}", (value * 1e3).round() / 1e3),
            );
        }
        for (index, line) in lines.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let path: Vec<String> =
                line.points.iter().map(|(n, value)| format!("{:.1},{:.1}", x(*n), y(*value))).collect();
            _ = writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                path.join(" ")
            );
            for (n, value) in &line.points {
                _ = writeln!(
                    out,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                    x(*n),
                    y(*value)
                );
                text(
                    out,
                    (x(*n), y(*value) - 8.0),
                    "middle",
                    colour,
                    &format!("{value:.*}", if y_max < 10.0 { 2 } else { 1 }),
                );
                text(out, (x(*n), HEIGHT - BOTTOM + 16.0), "middle", "#333", &short(*n));
            }
            text(out, (from + LEFT + wide - 80.0 * index as f64, TOP - 22.0), "end", colour, line.name);
        }
    }
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, colour: &str, what: &str) {
    _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{what}</text>"
    );
}

/// The next of 1, 2, 4, 6, 8 and 10 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.max(1e-9).log10().floor());
    [1.0, 2.0, 4.0, 6.0, 8.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|top| *top >= value * 1.05)
        .unwrap_or(power * 20.0)
}

/// 10 k, 1 M.
fn short(number: f64) -> String {
    if number >= 1e6 { format!("{} M", number / 1e6) } else { format!("{} k", number / 1e3) }
}
