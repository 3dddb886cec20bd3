//! Charts of two kinds: rows along one axis (bars, points, whiskers), and lines over a logarithmic
//! axis.

use super::axis::Scale;
use super::svg::{Anchor, Drawing, Shape, WIDTH};
use super::words;

/// Space at the right edge, so that labels of the last tick fit.
const EDGE: f64 = 16.0;
/// Distance from one row to the next.
const ROW: f64 = 23.0;
/// Height of the area of lines.
const ROOM: f64 = 220.0;

/// The head of a chart.
pub(super) struct Head {
    /// Title.
    pub(super) title: String,
    /// The second line: conditions, and the meaning of the marks.
    pub(super) about: String,
    /// Marks and their meaning.
    pub(super) legend: Vec<(Shape, &'static str, String)>,
}

/// An axis of values.
pub(super) struct Axis {
    /// What it measures.
    pub(super) label: String,
    /// Divisor of the values for the labels.
    pub(super) factor: f64,
    /// Logarithmic; otherwise linear from zero.
    pub(super) logarithmic: bool,
}

/// A row of a chart.
#[derive(Default)]
pub(super) struct Line {
    /// Its name, on the left.
    pub(super) label: String,
    /// Consecutive bars: class and length.
    pub(super) bars: Vec<(&'static str, f64)>,
    /// Ends of an interval.
    pub(super) whisker: Option<(f64, f64)>,
    /// Marks.
    pub(super) points: Vec<(Shape, &'static str, f64)>,
    /// Its figures, on the right.
    pub(super) text: String,
}

/// A line over a logarithmic axis.
pub(super) struct Series {
    /// Its name.
    pub(super) name: String,
    /// The mark of its points.
    pub(super) shape: Shape,
    /// Class of its points.
    pub(super) class: &'static str,
    /// Broken line.
    pub(super) dashed: bool,
    /// Position, value, and the interval around the value.
    pub(super) points: Vec<(u64, f64, (f64, f64))>,
}

/// Approximate width of a text: fonts differ, so rather too wide.
pub(super) fn width(text: &str, size: f64) -> f64 {
    let letter = |letter: char| {
        if letter.is_ascii_uppercase() || letter == '_' {
            0.68
        } else {
            0.58
        }
    };
    text.chars().map(letter).sum::<f64>() * size
}

/// Draws the head and leaves the height below it.
fn head(head: &Head) -> Drawing {
    let mut drawing = Drawing::new(&head.title);
    for line in words::wrap(&head.title, 50) {
        drawing.height += 18.0;
        drawing.text((0.0, drawing.height - 4.0), Anchor::Start, "name", &line);
    }
    for line in words::wrap(&head.about, 66) {
        drawing.height += 15.0;
        drawing.text((0.0, drawing.height - 3.0), Anchor::Start, "about", &line);
    }
    drawing.height += 2.0;
    let mut x = WIDTH;
    for (shape, class, text) in &head.legend {
        let text = words::cut(text, 54);
        let wide = 16.0 + width(&text, 11.5) + 14.0;
        if x + wide > WIDTH + 14.0 {
            x = 7.0;
            drawing.height += 18.0;
        }
        drawing.mark(*shape, (x, drawing.height - 8.0), class);
        drawing.text(
            (x + 11.0, drawing.height - 4.0),
            Anchor::Start,
            "about",
            &text,
        );
        x += wide;
    }
    drawing.height += 8.0;
    drawing
}

/// Rows along one axis.
pub(super) fn rows(about: &Head, axis: &Axis, reference: Option<f64>, lines: &[Line]) -> Drawing {
    let mut drawing = head(about);
    let label = |line: &Line| words::cut(&line.label, 26);
    let widest = |text: &dyn Fn(&Line) -> String| {
        lines
            .iter()
            .map(|line| width(&text(line), 12.0))
            .fold(0.0, f64::max)
    };
    let left = widest(&label) + 8.0;
    let right = WIDTH - (widest(&|line| line.text.clone()) + 8.0).max(EDGE);
    let values: Vec<f64> = lines.iter().flat_map(ends).chain(reference).collect();
    let scale = if axis.logarithmic {
        Scale::logarithmic(&values, left, right)
    } else {
        Scale::linear(
            values
                .iter()
                .copied()
                .filter(|value| value.is_finite())
                .fold(0.0, f64::max),
            left,
            right,
        )
    };
    let (top, bottom) = (drawing.height, drawing.height + ROW * lines.len() as f64);
    ticks_below(&mut drawing, axis, &scale, (top, bottom));
    if let Some(reference) = reference {
        let x = scale.at(reference);
        drawing.line((x, top), (x, bottom), "reference");
    }
    for (at, line) in lines.iter().enumerate() {
        let y = ROW.mul_add(at as f64 + 0.5, top);
        drawing.open(&format!("{}: {}", line.label, line.text));
        drawing.text((left - 8.0, y + 4.0), Anchor::End, "label", &label(line));
        row(&mut drawing, &scale, line, y);
        drawing.text((WIDTH, y + 4.0), Anchor::End, "figure", &line.text);
        drawing.close();
    }
    let described: Vec<String> = lines
        .iter()
        .map(|line| format!("{}: {}", line.label, line.text))
        .collect();
    drawing.description = format!("{} {}.", about.about, described.join("; "));
    drawing
}

/// All values for which a row needs space.
fn ends(line: &Line) -> Vec<f64> {
    let bars = line.bars.iter().map(|(_, length)| length).sum::<f64>();
    let bars = (!line.bars.is_empty()).then_some(bars);
    let whisker = line.whisker.into_iter().flat_map(|(low, high)| [low, high]);
    bars.into_iter()
        .chain(whisker)
        .chain(line.points.iter().map(|point| point.2))
        .collect()
}

fn row(drawing: &mut Drawing, scale: &Scale, line: &Line, y: f64) {
    let mut from = 0.0;
    for (class, length) in &line.bars {
        let (start, end) = (scale.at(from), scale.at(from + length));
        drawing.rectangle((start, y - 7.0), end - start, 14.0, class);
        from += length;
    }
    let ends = line
        .whisker
        .map(|(low, high)| (scale.at(low), scale.at(high)));
    // Around a single value the interval is drawn on top, since a narrow one would vanish behind
    // the mark.
    let (below, above) = if line.points.len() > 1 {
        (ends, None)
    } else {
        (None, ends)
    };
    if let Some((low, high)) = below {
        interval(drawing, (low, y), (high, y), "whisker");
    }
    for (shape, class, value) in &line.points {
        drawing.mark(*shape, (scale.at(*value), y), class);
    }
    if let Some((low, high)) = above {
        // A rim in the background colour separates it from a bar, under which a mark would vanish.
        if !line.bars.is_empty() {
            interval(drawing, (low, y), (high, y), "rim");
        }
        interval(drawing, (low, y), (high, y), "whisker");
    }
}

/// An interval with strokes at its ends.
fn interval(drawing: &mut Drawing, from: (f64, f64), to: (f64, f64), class: &str) {
    let (dx, dy) = if from.1 == to.1 {
        (0.0, 4.0)
    } else {
        (3.0, 0.0)
    };
    drawing.line(from, to, class);
    for end in [from, to] {
        drawing.line((end.0 - dx, end.1 - dy), (end.0 + dx, end.1 + dy), class);
    }
}

fn ticks_below(drawing: &mut Drawing, axis: &Axis, scale: &Scale, (top, bottom): (f64, f64)) {
    let mut free = f64::NEG_INFINITY;
    for tick in scale.ticks() {
        let (x, text) = (scale.at(tick), words::tick(tick / axis.factor));
        drawing.line((x, top), (x, bottom + 3.0), "grid");
        let half = width(&text, 11.5) / 2.0;
        if x - half > free {
            drawing.text((x, bottom + 16.0), Anchor::Middle, "about", &text);
            free = x + half + 6.0;
        }
    }
    drawing.text((WIDTH, bottom + 32.0), Anchor::End, "about", &axis.label);
    drawing.height = bottom + 40.0;
}

/// Lines over a number of items on a logarithmic horizontal axis; values from zero upwards.
pub(super) fn lines(about: &Head, axis: &Axis, across: &str, series: &[Series]) -> Drawing {
    let about = &Head {
        title: about.title.clone(),
        about: about.about.clone(),
        legend: series
            .iter()
            .map(|series| (series.shape, series.class, series.name.clone()))
            .collect(),
    };
    let mut drawing = head(about);
    let (highest, places) = extent(series);
    drawing.text(
        (0.0, drawing.height + 8.0),
        Anchor::Start,
        "about",
        &axis.label,
    );
    let (top, bottom) = (drawing.height + 18.0, drawing.height + 18.0 + ROOM);
    let up = Scale::linear(highest, bottom, top).rounded();
    let label = |tick: f64| words::tick(tick / axis.factor);
    let left = 8.0
        + up.ticks()
            .into_iter()
            .map(|tick| width(&label(tick), 11.5))
            .fold(0.0, f64::max);
    let values: Vec<f64> = places.iter().map(|&place| place.max(1) as f64).collect();
    let along = Scale::logarithmic(&values, left + EDGE, WIDTH - EDGE - 6.0);
    for tick in up.ticks() {
        drawing.line((left, up.at(tick)), (WIDTH, up.at(tick)), "grid");
        drawing.text(
            (left - 6.0, up.at(tick) + 4.0),
            Anchor::End,
            "about",
            &label(tick),
        );
    }
    places_below(&mut drawing, &along, &places, bottom);
    drawing.text((WIDTH, bottom + 32.0), Anchor::End, "about", across);
    drawing.height = bottom + 40.0;
    let mut described = Vec::new();
    for (at, one) in series.iter().enumerate() {
        // Side by side, since otherwise equal values of two series would hide each other.
        let aside = 3.0 * (at as f64 - (series.len() - 1) as f64 / 2.0);
        described.push(draw_series(&mut drawing, one, aside, &along, &up));
    }
    drawing.description = format!("{} {}.", about.about, described.join("; "));
    drawing
}

/// The greatest value with its interval, and all positions in order.
fn extent(series: &[Series]) -> (f64, Vec<u64>) {
    let points = || series.iter().flat_map(|series| &series.points);
    let values = points().map(|point| point.1.max(point.2.1));
    let highest = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
    let mut places: Vec<u64> = points().map(|point| point.0).collect();
    places.sort_unstable();
    places.dedup();
    (highest, places)
}

fn places_below(drawing: &mut Drawing, along: &Scale, places: &[u64], bottom: f64) {
    let mut free = f64::NEG_INFINITY;
    for &place in places {
        let (x, text) = (along.at(place.max(1) as f64), words::short(place));
        drawing.line((x, bottom), (x, bottom + 4.0), "whisker");
        let half = width(&text, 11.5) / 2.0;
        if x - half > free {
            drawing.text((x, bottom + 17.0), Anchor::Middle, "about", &text);
            free = x + half + 6.0;
        }
    }
}

/// Draws a line and describes it in words.
fn draw_series(
    drawing: &mut Drawing,
    series: &Series,
    aside: f64,
    along: &Scale,
    up: &Scale,
) -> String {
    let mut points = series.points.clone();
    points.sort_by_key(|point| point.0);
    let place =
        |point: &(u64, f64, (f64, f64))| (aside + along.at(point.0.max(1) as f64), up.at(point.1));
    let said: Vec<String> = points
        .iter()
        .map(|(place, value, (low, high))| {
            let [value, low, high] = [value, low, high].map(|figure| words::figure(*figure));
            format!("{} at {} ({low}–{high})", value, words::short(*place))
        })
        .collect();
    let said = format!("{}: {}", series.name, said.join(", "));
    drawing.open(&said);
    let places: Vec<(f64, f64)> = points.iter().map(place).collect();
    let dash = if series.dashed { " dashed" } else { "" };
    drawing.path(&places, &format!("{} line{dash}", series.class));
    for (&(x, y), (_, _, (low, high))) in places.iter().zip(&points) {
        interval(drawing, (x, up.at(*low)), (x, up.at(*high)), "whisker");
        drawing.mark(series.shape, (x, y), series.class);
    }
    drawing.close();
    said
}
