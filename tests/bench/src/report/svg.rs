//! SVG drawings: elements with classes instead of colours, so that one style sheet serves light and
//! dark themes.

use super::style;
use super::words::escape;

/// Width of every drawing: narrow enough that its text is legible on a phone.
pub(super) const WIDTH: f64 = 460.0;

/// Margin of a standalone drawing.
const MARGIN: f64 = 12.0;

/// The namespace, which a standalone file must name.
pub(super) const NAMESPACE: &str = "http://www.w3.org/2000/svg";

/// A drawing that grows downwards.
#[derive(Debug, Default)]
pub(super) struct Drawing {
    /// Name for users who do not see it.
    title: String,
    /// A description of it in words.
    pub(super) description: String,
    /// Height so far.
    pub(super) height: f64,
    body: String,
}

/// The part of a text that is at its position.
#[derive(Clone, Copy, Debug)]
pub(super) enum Anchor {
    /// The left end.
    Start,
    /// The middle.
    Middle,
    /// The right end.
    End,
}

/// The shape that marks a measured value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A disc.
    Circle,
    /// A square.
    Square,
    /// A square on its corner.
    Diamond,
    /// A triangle.
    Triangle,
    /// A vertical stroke.
    Stroke,
    /// A piece of a bar.
    Bar,
}

impl Drawing {
    /// An empty drawing with a name.
    pub(super) fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            height: 4.0,
            ..Self::default()
        }
    }

    /// A text with its baseline at `y`.
    pub(super) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escape(text);
        self.body.push_str(&format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{text}</text>\n"
        ));
    }

    /// A straight line.
    pub(super) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        self.body.push_str(&format!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>\n"
        ));
    }

    /// Lines from point to point.
    pub(super) fn path(&mut self, points: &[(f64, f64)], class: &str) {
        let points: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        self.body.push_str(&format!(
            "<polyline points=\"{}\" class=\"{class}\"/>\n",
            points.join(" ")
        ));
    }

    /// A filled rectangle.
    pub(super) fn rectangle(&mut self, (x, y): (f64, f64), width: f64, height: f64, class: &str) {
        let width = width.max(0.0);
        self.body.push_str(&format!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" class=\"{class}\"/>\n"
        ));
    }

    /// A mark around a position.
    pub(super) fn mark(&mut self, shape: Shape, (x, y): (f64, f64), class: &str) {
        let corners: &[(f64, f64)] = match shape {
            Shape::Circle => {
                let circle =
                    format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" class=\"{class}\"/>\n");
                self.body.push_str(&circle);
                return;
            }
            Shape::Square => &[(-3.5, -3.5), (3.5, -3.5), (3.5, 3.5), (-3.5, 3.5)],
            Shape::Diamond => &[(0.0, -5.0), (5.0, 0.0), (0.0, 5.0), (-5.0, 0.0)],
            Shape::Triangle => &[(0.0, -5.0), (4.8, 3.8), (-4.8, 3.8)],
            Shape::Stroke => &[(-1.5, -9.0), (1.5, -9.0), (1.5, 9.0), (-1.5, 9.0)],
            Shape::Bar => &[(-6.0, -5.0), (6.0, -5.0), (6.0, 5.0), (-6.0, 5.0)],
        };
        let corners: Vec<String> = corners
            .iter()
            .map(|(dx, dy)| format!("{:.1},{:.1}", x + dx, y + dy))
            .collect();
        self.body.push_str(&format!(
            "<polygon points=\"{}\" class=\"{class}\"/>\n",
            corners.join(" ")
        ));
    }

    /// Begins a group with a tooltip.
    pub(super) fn open(&mut self, title: &str) {
        self.body
            .push_str(&format!("<g><title>{}</title>\n", escape(title)));
    }

    /// Ends the group.
    pub(super) fn close(&mut self) {
        self.body.push_str("</g>\n");
    }

    /// The element for a page that contains the style sheet. `name` makes its ids unique.
    pub(super) fn inline(&self, name: &str) -> String {
        let frame = format!("viewBox=\"0 0 {WIDTH} {:.0}\"", self.height.ceil());
        self.element(name, &frame, "")
    }

    /// A separate file, with the style sheet, a background and a margin.
    pub(super) fn standalone(&self, name: &str) -> String {
        let (wide, high) = (WIDTH + 2.0 * MARGIN, self.height.ceil() + 2.0 * MARGIN);
        let place = format!("x=\"-{MARGIN}\" y=\"-{MARGIN}\" width=\"{wide}\" height=\"{high}\"");
        let frame = format!(
            "width=\"{:.0}\" height=\"{:.0}\" viewBox=\"-{MARGIN} -{MARGIN} {wide} {high}\"",
            wide * 1.25,
            high * 1.25
        );
        let style = format!(
            "<style>{}{}</style>\n<rect {place} class=\"ground\"/>\n",
            style::theme(),
            style::PLOT
        );
        let element = self.element(name, &frame, &style);
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{element}")
    }

    fn element(&self, name: &str, frame: &str, style: &str) -> String {
        let (title, description) = (escape(&self.title), escape(&self.description));
        format!(
            "<svg xmlns=\"{NAMESPACE}\" {frame} class=\"plot\" role=\"img\" \
             aria-labelledby=\"{name}-title {name}-description\">\n<title id=\"{name}-title\">{title}</title>\n\
             <desc id=\"{name}-description\">{description}</desc>\n{style}{}</svg>\n",
            self.body
        )
    }
}
