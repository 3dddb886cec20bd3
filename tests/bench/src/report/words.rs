//! Names and the formats of figures, the same for terminal, page and plots.

use crate::results::{Contestant, Direction, Interval, Latency, Spread, Traffic, Walk};

/// The text for a missing figure.
pub(super) const NONE: &str = "–";

/// The order in which flows are visited, after the name of a row.
pub(super) const fn walk(walk: Walk) -> &'static str {
    match walk {
        Walk::Random => "",
        Walk::Trains => ", in trains of eight",
        Walk::Zipf => ", by Zipf's law",
    }
}

/// A contestant's name.
pub(super) const fn contestant(contestant: Contestant) -> &'static str {
    match contestant {
        Contestant::Cable => "cable (no gateway)",
        Contestant::Pass => "XDP pass",
        Contestant::Noop => "no-op redirect",
        Contestant::Ikenat => "ikenat",
        Contestant::IkenatTwin => "ikenat (twin)",
        Contestant::IkenatGeneric => "ikenat, generic",
        Contestant::IkenatOneArmed => "ikenat, one-armed",
        Contestant::IkenatServices => "ikenat, 256 services",
        Contestant::Forwarding => "kernel forwarding",
        Contestant::Iptables => "iptables",
        Contestant::Nft => "nftables",
        Contestant::NftFlowtable => "nftables flowtable",
        Contestant::Ipvs => "IPVS",
        Contestant::Broken => "broken on purpose",
    }
}

/// A kind of traffic.
pub(super) const fn traffic(traffic: Traffic) -> &'static str {
    match traffic {
        Traffic::EspInUdp => "ESP in UDP 4500",
        Traffic::EspInUdpChecksum => "ESP in UDP 4500, checksum",
        Traffic::Esp => "native ESP",
        Traffic::Ike => "IKE",
        Traffic::Keepalive => "NAT-keepalive",
        Traffic::OtherPort => "another UDP port",
        Traffic::NotIpv4 => "not IPv4",
        Traffic::Mix => "mix",
    }
}

/// A direction.
pub(super) const fn way(way: Direction) -> &'static str {
    match way {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}

/// `1048576` as `1,048,576`.
pub(super) fn grouped(number: u64) -> String {
    separate(&number.to_string())
}

/// Commas between the thousands of a decimal number.
fn separate(number: &str) -> String {
    let (sign, number) = number
        .strip_prefix('-')
        .map_or(("", number), |rest| ("-", rest));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut text = String::from(sign);
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if !fraction.is_empty() {
        text.push('.');
        text.push_str(fraction);
    }
    text
}

/// A figure with the digits that are significant: one decimal below 100.
pub(super) fn figure(value: f64) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    if value.abs() >= 1e12 {
        return format!("{value:.2e}");
    }
    let text = if value.abs() < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    };
    separate(text.strip_suffix(".0").unwrap_or(&text))
}

/// A figure or the dash.
pub(super) fn maybe(value: Option<f64>, write: fn(f64) -> String) -> String {
    value.map_or_else(|| NONE.to_owned(), write)
}

/// Median and quartiles: `32.1 (31.8–33.0)`.
pub(super) fn spread(spread: &Spread) -> String {
    format!(
        "{:.1} ({:.1}–{:.1})",
        spread.median, spread.low, spread.high
    )
}

/// A ratio.
pub(super) fn ratio(value: f64) -> String {
    if !value.is_finite() {
        NONE.to_owned()
    } else if value.abs() < 10.0 {
        format!("{value:.3}")
    } else if value.abs() < 1e6 {
        separate(&format!("{value:.1}"))
    } else {
        format!("{value:.2e}")
    }
}

/// A median with its interval: `0.934 [0.921, 0.950]`.
pub(super) fn interval(interval: &Interval) -> String {
    format!(
        "{} [{}, {}]",
        ratio(interval.median),
        ratio(interval.low),
        ratio(interval.high)
    )
}

/// Packets per second with the unit's prefix: `1.234 M`, `812.3 k`.
pub(super) fn rate(value: f64) -> String {
    if !value.is_finite() {
        NONE.to_owned()
    } else if value.abs() >= 1e9 {
        format!("{} M", figure(value / 1e6))
    } else if value.abs() >= 999_950.0 {
        format!("{:.3} M", value / 1e6)
    } else if value.abs() >= 1_000.0 {
        format!("{:.1} k", value / 1e3)
    } else {
        figure(value)
    }
}

/// The factor and the name of the unit that suits a time in nanoseconds.
fn unit(nanoseconds: f64) -> (f64, &'static str) {
    if nanoseconds >= 1e6 {
        (1e6, "ms")
    } else if nanoseconds >= 1e3 {
        (1e3, "µs")
    } else {
        (1.0, "ns")
    }
}

/// A time with its unit: `12.3 µs`.
pub(super) fn duration(nanoseconds: f64) -> String {
    let (factor, name) = unit(nanoseconds);
    format!("{} {name}", figure(nanoseconds / factor))
}

/// The three percentiles in the unit of the first: `8.1 / 22.4 / 61 µs`.
pub(super) fn latency(latency: &Latency) -> String {
    let (factor, name) = unit(latency.p50);
    let [p50, p99, p999] =
        [latency.p50, latency.p99, latency.p999].map(|value| figure(value / factor));
    format!("{p50} / {p99} / {p999} {name}")
}

/// An amount of memory: `32.0 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    let value = bytes as f64;
    if value >= 1_073_741_824.0 {
        format!("{:.2} GiB", value / 1_073_741_824.0)
    } else if value >= 1_048_576.0 {
        format!("{:.1} MiB", value / 1_048_576.0)
    } else if value >= 1_024.0 {
        format!("{:.1} KiB", value / 1_024.0)
    } else {
        format!("{bytes} B")
    }
}

/// A share in per cent, with enough digits for small shares.
pub(super) fn percent(share: f64) -> String {
    let value = share * 100.0;
    if !value.is_finite() {
        NONE.to_owned()
    } else if value == 0.0 || value.abs() >= 10.0 {
        format!("{} %", figure(value))
    } else if value.abs() >= 0.01 {
        format!("{value:.2} %")
    } else {
        format!("{value:.1e} %")
    }
}

/// A number of flows on an axis: `64 K`. Tables have the whole number.
pub(super) fn short(number: u64) -> String {
    for (size, name) in [
        (1 << 20, "M"),
        (1_000_000, "M"),
        (1 << 10, "K"),
        (1_000, "K"),
    ] {
        if number >= size && number.is_multiple_of(size) {
            return format!("{} {name}", grouped(number / size));
        }
    }
    grouped(number)
}

/// `1 core`, `2 cores`.
pub(super) fn plural(number: u64, one: &str) -> String {
    format!(
        "{} {one}{}",
        grouped(number),
        if number == 1 { "" } else { "s" }
    )
}

/// Text from outside, without characters that a terminal would interpret or XML forbids.
pub(super) fn clean(text: &str) -> String {
    let odd = |letter: char| letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}');
    text.chars()
        .map(|letter| if odd(letter) { ' ' } else { letter })
        .collect()
}

/// Text for an element or a quoted attribute of HTML and SVG.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in clean(text).chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// At most `width` characters; an ellipsis replaces the rest.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Lines of at most `width` characters. A longer word is broken.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in clean(text).split_whitespace() {
        for (at, piece) in word
            .chars()
            .collect::<Vec<_>>()
            .chunks(width.max(1))
            .enumerate()
        {
            let gap = usize::from(used > 0 && at == 0);
            if used + gap + piece.len() > width {
                lines.push(String::new());
                used = 0;
            } else if gap == 1 {
                lines.last_mut().expect("starts with a line").push(' ');
                used += 1;
            }
            lines.last_mut().expect("starts with a line").extend(piece);
            used += piece.len();
        }
    }
    lines
}

/// A figure on an axis, as short as possible.
pub(super) fn tick(value: f64) -> String {
    if value.abs() >= 1e9 {
        return format!("{value:.1e}");
    }
    separate(&format!("{}", (value * 1e6).round() / 1e6))
}
