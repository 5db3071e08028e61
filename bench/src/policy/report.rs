//! What was earned on each link, as a table and as JSON.

use comfy_table::{CellAlignment, Table, presets::NOTHING};
use serde::Serialize;

/// The results on every link.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// In the order of the links' names and of the budgets.
    pub runs: Vec<Run>,
}

/// The results on one link with one budget.
#[derive(Debug, Serialize)]
pub(super) struct Run {
    /// Name of the trace's file.
    pub trace: String,
    /// Mean rate of the trace in Mbit/s.
    pub mbit: f64,
    /// Budget in milliseconds.
    pub budget_ms: u64,
    /// Frames sent.
    pub frames: u64,
    /// Highest mean value of a frame that any sender could reach.
    pub optimum: f64,
    /// Rate control with the newest frame waiting.
    pub newest: Figures,
    /// Rate control with all frames waiting until their deadlines.
    pub all: Figures,
    /// Rate control with the newest frame waiting, where answers are to cost little energy.
    pub saving: Figures,
    /// The second level for every frame, the newest first; late packets count for what arrived.
    pub fixed: Figures,
    /// The real head and tail, with the newest frame waiting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pair: Option<PairFigures>,
}

/// What the real head and tail earned.
#[derive(Debug, Serialize)]
pub(super) struct PairFigures {
    /// Per cent of the optimum.
    pub percent: f64,
    /// Share of the frames that had an answer in time.
    pub answered: f64,
    /// Share of the frames whose answer came from a cut packet.
    pub cut: f64,
    /// Mean time of a frame in the stages of head and tail, which the optimum and the simulation have as well.
    pub stages_ms: f64,
}

/// What one sender earned.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    /// Per cent of the optimum.
    pub percent: f64,
    /// Share of the frames that had an answer.
    pub answered: f64,
    /// Share of the frames whose answer came from a cut packet.
    pub cut: f64,
    /// Median round trip of a datagram in milliseconds.
    pub rtt_ms_p50: f64,
    /// 95th percentile.
    pub rtt_ms_p95: f64,
    /// Joules of an answer, by the model of energy.
    pub joules: f64,
}

impl Report {
    /// One row for each link and budget.
    #[must_use]
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header([
            "link", "Mbit/s", "budget", "optimum", "newest", "answered", "cut", "RTT p50", "p95", "J", "all",
            "energy", "J", "level 1", "pair",
        ]);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for run in &self.runs {
            let percent = |value: f64| format!("{value:.1} %");
            let share = |value: f64| format!("{:.0} %", 100.0 * value);
            table.add_row([
                run.trace.clone(),
                format!("{:.2}", run.mbit),
                format!("{} ms", run.budget_ms),
                format!("{:.3}", run.optimum),
                percent(run.newest.percent),
                share(run.newest.answered),
                share(run.newest.cut),
                format!("{:.0} ms", run.newest.rtt_ms_p50),
                format!("{:.0} ms", run.newest.rtt_ms_p95),
                format!("{:.3}", run.newest.joules),
                percent(run.all.percent),
                percent(run.saving.percent),
                format!("{:.3}", run.saving.joules),
                percent(run.fixed.percent),
                run.pair.as_ref().map_or_else(String::new, |pair| percent(pair.percent)),
            ]);
        }
        table
    }
}
