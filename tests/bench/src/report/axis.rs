//! Axes: the position of a value, and the values that get a label; linear from zero, or
//! logarithmic.

/// An axis between two positions of a drawing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
    from: f64,
    to: f64,
}

impl Scale {
    /// From zero to at least `high`. If `high` is not a number or not above zero, the axis ends at
    /// one.
    pub(super) fn linear(high: f64, from: f64, to: f64) -> Self {
        let high = if high.is_finite() && high > 0.0 {
            high
        } else {
            1.0
        };
        Self {
            low: 0.0,
            high,
            logarithmic: false,
            from,
            to,
        }
    }

    /// From the smallest to the greatest of the values above zero.
    pub(super) fn logarithmic(values: &[f64], from: f64, to: f64) -> Self {
        let usable = || {
            values
                .iter()
                .copied()
                .filter(|value| value.is_finite() && *value > 0.0)
        };
        let low = usable().min_by(f64::total_cmp).unwrap_or(1.0);
        let high = usable().max_by(f64::total_cmp).unwrap_or(1.0);
        let (low, high) = if high > low {
            (low, high)
        } else {
            (low / 2.0, high * 2.0)
        };
        Self {
            low,
            high,
            logarithmic: true,
            from,
            to,
        }
    }

    /// The same axis, extended to the next labelled value.
    pub(super) fn rounded(mut self) -> Self {
        if !self.logarithmic {
            let step = step(self.high);
            self.high = (self.high / step).ceil() * step;
        }
        self
    }

    /// The position of a value; a value beyond an end is at that end.
    pub(super) fn at(&self, value: f64) -> f64 {
        let value = if value.is_finite() {
            value.clamp(self.low, self.high)
        } else {
            self.low
        };
        let share = if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            value / self.high
        };
        self.from + share * (self.to - self.from)
    }

    /// The values that get a label.
    pub(super) fn ticks(&self) -> Vec<f64> {
        if !self.logarithmic {
            let step = step(self.high);
            return (0..=20_u8)
                .map(|n| f64::from(n) * step)
                .take_while(|&tick| tick <= self.high * 1.000_001)
                .collect();
        }
        let decades = (self.high / self.low).log10();
        let digits: &[f64] = if decades < 1.5 {
            &[1.0, 2.0, 5.0]
        } else if decades < 3.0 {
            &[1.0, 3.0]
        } else {
            &[1.0]
        };
        let first = self.low.log10().floor();
        let powers = (0..=40_u8).map(|n| 10_f64.powf(first + f64::from(n)));
        let powers = powers.take_while(|&power| power <= self.high);
        let all = powers.flat_map(|power| digits.iter().map(move |digit| digit * power));
        let inside = self.low * 0.999_999..=self.high * 1.000_001;
        let ticks: Vec<f64> = all.filter(|tick| inside.contains(tick)).collect();
        if ticks.len() < 2 {
            vec![self.low, self.high]
        } else {
            ticks
        }
    }
}

/// A round step that divides `high` into four to ten parts.
fn step(high: f64) -> f64 {
    let power = 10_f64.powf((high / 5.0).log10().floor());
    let rough = high / 5.0 / power;
    let digit = if rough <= 1.0 {
        1.0
    } else if rough <= 2.0 {
        2.0
    } else if rough <= 5.0 {
        5.0
    } else {
        10.0
    };
    digit * power
}

#[cfg(test)]
mod tests {
    use super::Scale;

    #[test]
    fn linear_axes_have_round_labels_and_start_at_zero() {
        let scale = Scale::linear(3_480.0, 100.0, 300.0);
        assert_eq!(scale.ticks(), [0.0, 1_000.0, 2_000.0, 3_000.0]);
        assert!((scale.at(0.0) - 100.0).abs() < 1e-9);
        assert!((scale.at(1_740.0) - 200.0).abs() < 1e-9);
        assert!((scale.rounded().at(4_000.0) - 300.0).abs() < 1e-9);
    }

    #[test]
    fn logarithmic_axes_label_round_values_inside_and_keep_outsiders_at_the_end() {
        let scale = Scale::logarithmic(&[8.0, 0.0, 90.0], 0.0, 100.0);
        assert_eq!(scale.ticks(), [10.0, 20.0, 50.0]);
        assert!(scale.at(0.0).abs() < 1e-9 && (scale.at(1e9) - 100.0).abs() < 1e-9);
        let wide = Scale::logarithmic(&[1.0, 1_048_576.0], 0.0, 100.0);
        assert_eq!(wide.ticks().len(), 7);
    }

    #[test]
    fn odd_values_make_an_axis_all_the_same() {
        for high in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-12, 1e15] {
            let scale = Scale::linear(high, 0.0, 100.0);
            assert!(
                scale.at(high).is_finite() && scale.ticks().len() > 1,
                "{high}"
            );
        }
        for values in [&[][..], &[5.0], &[f64::NAN, -3.0]] {
            let scale = Scale::logarithmic(values, 0.0, 100.0);
            assert!(
                scale.at(5.0).is_finite() && scale.ticks().len() > 1,
                "{values:?}"
            );
        }
    }
}
