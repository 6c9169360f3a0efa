// SPDX-License-Identifier: Apache-2.0
//! Where the time of a first boot goes: stages between lines of the console, by the build machine's clock, and a picture
//! of them (SVG).

use crate::console::Console;
use anyhow::{Context, Result};
use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How exact times are.
const POLL: Duration = Duration::from_millis(50);
/// A firmware's last words before it starts the disk's boot loader.
const FIRMWARE: &str = "BdsDxe: starting ";
/// How the lines of the initrd begin.
const INITRD: &str = "initrd: ";
/// How those of firstboot begin, once one is done with a phase: `firstboot: phase 3/13 network done 1.23 s`.
const PHASE: &str = "firstboot: phase ";

/// A line, and seconds from power-on until it was on the console.
pub type Line = (f64, String);

/// A part of a boot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stage {
    /// What it is.
    pub name: String,
    /// Seconds from power-on until it began.
    pub from: f64,
    /// Seconds from power-on until it ended.
    pub to: f64,
}

/// Runs `during` and notes when lines appear on the console meanwhile; the device was switched on at `start`.
///
/// # Errors
/// Those of `during`, and when the console cannot be read.
pub fn watched<T>(console: &Console, start: Instant, during: impl FnOnce() -> Result<T>) -> Result<(T, Vec<Line>)> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| -> Result<Vec<Line>> {
            let mut lines: Vec<Line> = Vec::new();
            loop {
                let last = over.load(Ordering::Relaxed);
                let (text, now) = (console.text()?, start.elapsed().as_secs_f64());
                // The last line may still be growing.
                let whole = text.rfind('\n').map_or("", |end| &text[..end]);
                // A boot that is repeated begins again.
                lines.truncate(whole.lines().count());
                lines.extend(whole.lines().skip(lines.len()).map(|line| (now, line.to_owned())));
                if last {
                    return Ok(lines);
                }
                std::thread::sleep(POLL);
            }
        });
        let done = during();
        over.store(true, Ordering::Relaxed);
        let lines = watch.join().map_err(|_| anyhow::anyhow!("watch a console"))??;
        Ok((done?, lines))
    })
}

/// The stages of a first boot whose node was Ready after `ready` seconds.
pub fn stages(lines: &[Line], ready: f64) -> Vec<Stage> {
    let mut stages: Vec<Stage> = Vec::new();
    let mut until = |name: &str, to: Option<f64>| {
        let from = stages.last().map_or(0.0, |stage| stage.to);
        if let Some(to) = to.filter(|to| *to >= from) {
            stages.push(Stage { name: name.to_owned(), from, to });
        }
    };
    let first = |part: &str| lines.iter().find(|(_, line)| line.contains(part)).map(|(at, _)| *at);
    let last = |part: &str| lines.iter().rfind(|(_, line)| line.contains(part)).map(|(at, _)| *at);
    until("firmware", first(FIRMWARE));
    until("loader, kernel", first(INITRD));
    until("initrd", last(INITRD));
    until("systemd", first("firstboot: "));
    for (at, line) in lines {
        let Some((_, said)) = line.split_once(PHASE) else { continue };
        let mut words = said.split_whitespace().skip(1);
        if let (Some(name), Some("done")) = (words.next(), words.next()) {
            until(name, Some(*at));
        }
    }
    until("Ready", Some(ready));
    stages
}

/// Pixels.
const WIDTH: f64 = 960.0;
const ROW: f64 = 100.0;
const TOP: f64 = 34.0;
/// Letters in a line of the list below a row.
const LINE: usize = 150;
/// Stages that are shorter, in seconds, are not in that list.
const SHORT: f64 = 0.25;
const COLOURS: [&str; 10] =
    ["#4e79a7", "#f28e2b", "#76b7b2", "#e15759", "#59a14f", "#b07aa1", "#9c755f", "#edc948", "#ff9da7", "#79706e"];

/// The stages of some boots on one scale: a bar for each boot, and below it what its parts are. A stage has the same
/// colour in each.
pub fn picture(rows: &[(&str, Vec<Stage>)]) -> String {
    let end = rows.iter().filter_map(|(_, stages)| stages.last()).map(|stage| stage.to).fold(1.0, f64::max);
    let (scale, height) = ((WIDTH - 20.0) / end, TOP + ROW * rows.len() as f64);
    let mut names: Vec<&str> = Vec::new();
    for stage in rows.iter().flat_map(|(_, stages)| stages) {
        if !names.contains(&stage.name.as_str()) {
            names.push(&stage.name);
        }
    }
    let colour = |name: &str| COLOURS[names.iter().position(|known| *known == name).unwrap_or(0) % COLOURS.len()];
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut put = |text: String| svg.push_str(&text);
    let step = [1.0, 2.0, 5.0, 10.0, 20.0, 60.0].into_iter().find(|step| end / step <= 16.0).unwrap_or(300.0);
    for tick in 0..=(end / step) as u32 {
        let (x, seconds) = (10.0 + f64::from(tick) * step * scale, f64::from(tick) * step);
        put(format!("<text x=\"{x:.1}\" y=\"14\" fill=\"#555\">{seconds:.0} s</text>\n"));
        put(format!("<path d=\"M{x:.1} 18V{height}\" stroke=\"#eee\"/>\n"));
    }
    for (number, (name, stages)) in rows.iter().enumerate() {
        let y = TOP + ROW * number as f64;
        put(format!("<text x=\"10\" y=\"{:.1}\" font-weight=\"bold\">{}</text>\n", y + 10.0, escaped(name)));
        for stage in stages {
            let (x, width, seconds) =
                (10.0 + stage.from * scale, (stage.to - stage.from) * scale, stage.to - stage.from);
            let (top, fill, title) = (y + 16.0, colour(&stage.name), escaped(&stage.name));
            put(format!(
                "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"28\" fill=\"{fill}\"><title>{title} {seconds:.1} s</title></rect>\n"
            ));
        }
        for (line, parts) in list(stages).iter().enumerate() {
            put(format!("<text x=\"10\" y=\"{:.1}\" xml:space=\"preserve\">", y + 60.0 + 15.0 * line as f64));
            for stage in parts {
                let (fill, text) = (colour(&stage.name), said(stage));
                put(format!("<tspan fill=\"{fill}\">■</tspan> {}   ", escaped(&text)));
            }
            put("</text>\n".to_owned());
        }
    }
    svg + "</svg>\n"
}

/// A stage in the list below its bar.
fn said(stage: &Stage) -> String {
    format!("{} {:.1} s", stage.name, stage.to - stage.from)
}

/// The stages that are listed, in lines that fit.
fn list(stages: &[Stage]) -> Vec<Vec<&Stage>> {
    let (mut lines, mut room): (Vec<Vec<&Stage>>, usize) = (Vec::new(), 0);
    for stage in stages.iter().filter(|stage| stage.to - stage.from >= SHORT) {
        let length = said(stage).len() + 5;
        match lines.last_mut().filter(|_| length <= room) {
            Some(line) => line.push(stage),
            None => {
                lines.push(vec![stage]);
                room = LINE;
            }
        }
        room -= length.min(room);
    }
    lines
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Writes the picture beside a report.
pub fn write(report: &std::path::Path, rows: &[(&str, Vec<Stage>)]) -> Result<std::path::PathBuf> {
    let path = report.with_file_name("timeline.svg");
    crate::write_report(&path, &picture(rows)).context("write the timeline")?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Vec<Line> {
        let texts = [
            (1.5, "BdsDxe: starting Boot0001 \"UEFI Misc Device\""),
            (4.0, "initrd: root is /dev/vda3"),
            (6.0, "initrd: data is created"),
            (9.0, "[    8.1] firstboot: waits for nothing"),
            (10.0, "firstboot: phase 1/13 identity done 0.10 s"),
            (12.5, "firstboot: phase 2/13 join done 2.50 s"),
        ];
        texts.map(|(at, text)| (at, text.to_owned())).to_vec()
    }

    #[test]
    fn stages_follow_one_another() {
        let names = |stages: &[Stage]| stages.iter().map(|s| (s.name.clone(), s.to)).collect::<Vec<_>>();
        let all = stages(&lines(), 14.0);
        let wanted = [
            ("firmware", 1.5),
            ("loader, kernel", 4.0),
            ("initrd", 6.0),
            ("systemd", 9.0),
            ("identity", 10.0),
            ("join", 12.5),
            ("Ready", 14.0),
        ];
        assert_eq!(names(&all), wanted.map(|(name, to)| (name.to_owned(), to)));
        assert!(all.windows(2).all(|two| two[0].to == two[1].from));
        // A firmware that says nothing, and a node that was Ready before the last phase had said so.
        let all = stages(&lines()[1..], 12.0);
        assert_eq!((all[0].name.as_str(), all.last().unwrap().name.as_str()), ("loader, kernel", "join"));
    }

    #[test]
    fn a_picture_has_every_stage_of_every_row() {
        let svg = picture(&[("this <tree>", stages(&lines(), 14.0)), ("other", stages(&lines()[..2], 28.0))]);
        assert_eq!(svg.matches("<title>").count(), 7 + 4);
        assert!(svg.contains("this &lt;tree>") && svg.contains(">28 s<") && svg.ends_with("</svg>\n"), "{svg}");
        assert!(svg.contains("<title>initrd 2.0 s</title>"), "{svg}");
        // One line below each bar; the second boot has no such phase.
        assert_eq!(svg.matches("</tspan> identity 1.0 s ").count(), 1);
        assert_eq!(svg.matches("xml:space").count(), 2);
    }

    #[test]
    fn a_list_has_what_takes_long_in_lines_that_fit() {
        let stage = |number: u32| {
            let from = f64::from(number);
            Stage { name: format!("stage-{number:02}"), from, to: from + if number == 3 { 0.2 } else { 1.0 } }
        };
        let all: Vec<Stage> = (0..20).map(stage).collect();
        let lines = list(&all);
        let names: Vec<Vec<&str>> =
            lines.iter().map(|line| line.iter().map(|stage| stage.name.as_str()).collect()).collect();
        // Fourteen letters and five more each.
        assert_eq!(names.iter().map(Vec::len).collect::<Vec<_>>(), [7, 7, 5]);
        assert!(!names.concat().contains(&"stage-03"));
    }

    #[test]
    fn lines_have_the_time_at_which_they_were_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        std::fs::write(&path, "first\nhal").unwrap();
        let console = Console::new(path.clone());
        let ((), lines) = watched(&console, Instant::now(), || {
            std::fs::write(&path, "first\nhalf\n")?;
            Ok(())
        })
        .unwrap();
        assert_eq!(lines.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>(), ["first", "half"]);
        assert!(watched(&console, Instant::now(), || -> Result<()> { anyhow::bail!("x") }).is_err());
    }
}
