//! A whole run: the layers one after the other, then tables, page and raw figures.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::boot::Boot;
use crate::progress::{Part, Progress};
use crate::results::{LayerA, Run};
use crate::{conditions, join, layer_a, layer_b, layer_c, report};

/// The layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Layer {
    /// Instructions in an emulated machine.
    A,
    /// The program alone.
    B,
    /// End to end.
    C,
}

impl Layer {
    const fn name(self) -> &'static str {
        match self {
            Self::A => "layer A",
            Self::B => "layer B",
            Self::C => "layer C",
        }
    }

    /// About how many seconds it takes on a machine with two CPUs.
    const fn seconds(self, quick: bool) -> f64 {
        match (self, quick) {
            (Self::A, _) => 50.0,
            (Self::B, true) => 60.0,
            (Self::B, false) => 180.0,
            (Self::C, true) => 90.0,
            (Self::C, false) => 900.0,
        }
    }
}

/// The selection of measurements, and the destinations of the results.
pub struct Options {
    /// These layers, in order.
    pub layers: Vec<Layer>,
    /// Fewer rounds and cases.
    pub quick: bool,
    /// Only rows with this text in their label.
    pub only: Option<String>,
    /// The directory of `run.json` and `report.html`.
    pub results: PathBuf,
    /// A second file for the raw figures.
    pub save: Option<PathBuf>,
    /// The raw figures of an earlier run.
    pub compare: Option<PathBuf>,
    /// An older object to measure layer B against.
    pub against: Option<PathBuf>,
    /// The command line as the user typed it.
    pub command: String,
    /// The command that boots a machine for layer A.
    pub boot: Vec<String>,
    /// The seed of the order of layer C's blocks.
    pub seed: u64,
}

/// Measures, prints and writes everything. Returns why the run does not count, or nothing if it
/// counts.
///
/// # Errors
/// A step failed. The results up to then are printed and written all the same.
pub fn run(options: &Options) -> Result<Vec<String>> {
    let before = options.compare.as_deref().map(read).transpose()?;
    let layers = wanted(options)?;
    fs::create_dir_all(&options.results)
        .with_context(|| format!("failed to create {}", options.results.display()))?;
    let mut run = Run {
        conditions: conditions::here(options.command.clone(), options.quick)?,
        ..Run::default()
    };
    let parts: Vec<Part> = layers
        .iter()
        .map(|layer| (layer.name(), layer.seconds(options.quick)))
        .collect();
    let progress = Progress::new(parts);
    let outcome = layers
        .iter()
        .try_for_each(|layer| measure(*layer, options, &progress, &mut run));
    progress.end();
    let anything = run.a.is_some() || run.b.is_some() || run.c.is_some();
    if anything {
        publish(options, &run, before.as_ref())?;
    }
    outcome.map(|()| faults(&run))
}

/// The raw figures of a run.
///
/// # Errors
/// The file cannot be read, or is not a run of this benchmark.
pub fn read(path: &Path) -> Result<Run> {
    let failed = || format!("failed to read the figures in {}", path.display());
    let text = fs::read_to_string(path).with_context(failed)?;
    serde_json::from_str(&text).with_context(failed)
}

/// The layers with at least one selected row.
fn wanted(options: &Options) -> Result<Vec<Layer>> {
    let Some(word) = &options.only else {
        return Ok(options.layers.clone());
    };
    let has = |layer: &Layer| match layer {
        Layer::A => layer_a::has(word),
        Layer::B => layer_b::has(word),
        Layer::C => layer_c::has(word, options.quick),
    };
    let layers: Vec<Layer> = options.layers.iter().copied().filter(has).collect();
    ensure!(
        !layers.is_empty(),
        "nothing in these layers is called `{word}`; rows are called `ikenat esp-in-udp inbound` in layer A, `esp-in-udp \
         inbound 1 M hit`, `table ikenat 64 K`, `memory`, `loads` or `user stats` in layer B, `{}` or `loss-free` in layer C",
        layer_c::label(&layer_c::BASE)
    );
    Ok(layers)
}

fn measure(layer: Layer, options: &Options, progress: &Progress, run: &mut Run) -> Result<()> {
    progress.begin(layer.name());
    let step = |done, all, what: &str| progress.step(done, all, what);
    let failed = || format!("{} failed", layer.name());
    match layer {
        Layer::A => run.a = Some(boots(options, &step).with_context(failed)?),
        Layer::B => {
            let options = layer_b::Options {
                quick: options.quick,
                only: options.only.clone(),
                against: options.against.clone(),
                progress: &step,
            };
            run.b = Some(layer_b::run(&options).with_context(failed)?);
        }
        Layer::C => {
            let options = layer_c::Options {
                quick: options.quick,
                only: options.only.clone(),
                seed: options.seed,
                progress: &step,
            };
            run.c = Some(layer_c::run(&options).with_context(failed)?);
        }
    }
    Ok(())
}

/// Runs two machines at the same time. Neither sees the other, since their time is counted in their
/// own instructions. The second one begins a little later by its own clock, so that ticks of its
/// timer meet other packets. Otherwise two boots would be equal to the last instruction, and would
/// not show how far a figure can be trusted.
fn boots(options: &Options, step: &(dyn Fn(usize, usize, &str) + Sync)) -> Result<LayerA> {
    let done = Mutex::new([0; 2]);
    let one = |at: usize, after: u32| {
        let mut arguments = vec![format!("--after={after}")];
        arguments.extend(options.only.iter().map(|word| format!("--only={word}")));
        arguments.extend(options.quick.then(|| "--quick".to_owned()));
        let boot = Boot {
            command: &options.boot,
            output: options.results.join(format!("boot-{at}.json")),
            arguments,
        };
        boot.run(&|mine, all, what| {
            let sum = {
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                done[at] = mine;
                done.iter().sum()
            };
            step(sum, all * 2, what);
        })
    };
    let (first, second) = std::thread::scope(|scope| {
        let second = scope.spawn(|| one(1, 217));
        (one(0, 0), second.join())
    });
    let second = second.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    join::join(vec![first?, second?])
}

/// Prints the tables and writes the files.
fn publish(options: &Options, run: &Run, before: Option<&Run>) -> Result<()> {
    print!("{}", report::terminal(run));
    if let Some(before) = before {
        print!("{}", report::compare(run, before));
    }
    let json = serde_json::to_string_pretty(run)? + "\n";
    let mut files = vec![
        (
            "page",
            options.results.join("report.html"),
            report::html(run, before),
        ),
        (
            "raw figures",
            options.results.join("run.json"),
            json.clone(),
        ),
    ];
    files.extend(options.save.clone().map(|path| ("saved", path, json)));
    println!();
    for (name, text) in report::svgs(run) {
        write(
            &options.results.join("plots").join(format!("{name}.svg")),
            &text,
        )?;
    }
    for (what, path, text) in files {
        write(&path, &text)?;
        println!("{what}: {}", path.display());
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    let failed = || format!("failed to write {}", path.display());
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(failed)?;
    }
    fs::write(path, text).with_context(failed)
}

/// Why the figures do not count.
fn faults(run: &Run) -> Vec<String> {
    let apart = run.a.as_ref().and_then(join::disagreement);
    let void = run.c.as_ref().and_then(|c| c.void.clone());
    let void = void.map(|why| format!("the run is void: {why}"));
    apart.into_iter().chain(void).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{ARow, Contestant, Direction, LayerC, Traffic};

    fn options(directory: &Path) -> Options {
        Options {
            layers: vec![Layer::A],
            quick: true,
            only: None,
            results: directory.to_path_buf(),
            save: None,
            against: None,
            compare: None,
            command: "x".to_owned(),
            boot: Vec::new(),
            seed: 1,
        }
    }

    fn directory(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("ikenat-run-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_comparison_that_cannot_be_read_ends_the_run_before_it_begins() {
        let directory = directory("compare");
        let mut options = options(&directory);
        options.compare = Some(directory.join("saved/none.json"));
        let error = run(&options).map(drop).expect_err("there is no such file");
        assert!(
            format!("{error:#}").contains("saved/none.json"),
            "{error:#}"
        );
        assert!(!directory.exists());
    }

    #[test]
    fn a_word_that_nothing_contains_ends_the_run_before_it_begins() {
        let directory = directory("word");
        let mut options = options(&directory);
        options.layers = vec![Layer::A, Layer::B, Layer::C];
        options.only = Some("no such row".to_owned());
        let error = run(&options).map(drop).expect_err("nothing is called so");
        assert!(
            error.to_string().contains("ikenat esp-in-udp inbound"),
            "{error}"
        );
        assert!(!directory.exists());
    }

    #[test]
    fn a_word_chooses_the_layers_that_have_it() -> Result<()> {
        let mut options = options(Path::new("x"));
        options.layers = vec![Layer::A, Layer::B, Layer::C];
        for (word, expected) in [
            ("nft esp", vec![Layer::A]),
            ("table ikenat", vec![Layer::B]),
            ("1442 bytes", vec![Layer::C]),
            ("esp-in-udp inbound", vec![Layer::A, Layer::B, Layer::C]),
        ] {
            options.only = Some(word.to_owned());
            options.quick = false;
            assert_eq!(wanted(&options)?, expected, "{word}");
        }
        Ok(())
    }

    #[test]
    fn a_run_survives_its_file_and_says_what_is_wrong_with_it() -> Result<()> {
        let row = ARow {
            contestant: Contestant::Ikenat,
            traffic: Traffic::Esp,
            way: Direction::Outbound,
            totals: vec![1000.0, 1006.0],
            marginal: Some(3.0),
            sent: 1,
            arrived: 1,
        };
        let apart = Run {
            a: Some(LayerA {
                rows: vec![row],
                ..LayerA::default()
            }),
            c: Some(LayerC {
                void: Some("the twin".to_owned()),
                ..LayerC::default()
            }),
            ..Run::default()
        };
        let directory = directory("survives");
        let mut options = options(&directory);
        options.save = Some(directory.join("saved/before.json"));
        publish(&options, &apart, None)?;
        let same = read(&directory.join("saved/before.json"));
        let page = directory.join("report.html").is_file();
        let plots = fs::read_dir(directory.join("plots")).is_ok_and(|files| files.count() > 0);
        fs::remove_dir_all(&directory)?;
        let same = same?;
        assert!(page && plots);
        assert_eq!(
            serde_json::to_string(&same)?,
            serde_json::to_string(&apart)?
        );
        let faults = faults(&same);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].contains("ikenat esp outbound"), "{faults:?}");
        assert!(faults[1].contains("void"), "{faults:?}");
        Ok(())
    }
}
