//! What a run needs, opened and checked before its first frame, and again before new settings take effect.

use std::{ffi::OsString, sync::Arc, time::Duration};

use narrows_models::{Bundle, Geometry};
use narrows_policy::PlannerConfig;
use narrows_wire::{BundleId, Framing};

use super::{shared::Shared, watts};
use crate::{
    Chain, Error, Local,
    config::{Config, Flags, Level, Path},
    enrol::{Renewal, settle},
    identity,
    policy::{FixedPolicy, Levels, Spending},
    report::SpoolTally,
    sink::PictureFolder,
    source::{Settings, Sources, Spec, present},
    stage::Stages,
    uplink::{Access, DecisionFile, DecisionLog, Planning, Servers},
};

/// Everything that settings decide about a run, ready for use. Where answers go is opened when it is needed, since the sinks of
/// earlier settings may hold the same files and addresses.
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) device: String,
    pub(super) bundle: Bundle,
    pub(super) sources: Sources,
    pub(super) source_settings: SourceSettings,
    pub(super) pictures: Option<PictureFolder>,
    pub(super) stages: Stages,
    pub(super) policy: FixedPolicy,
    /// `None` where nothing is sent.
    pub(super) servers: Option<Arc<Servers>>,
    /// Keeps the identity up to date.
    pub(super) renewal: Option<Renewal>,
    /// For frames whose level is chosen when they are sent.
    pub(super) planning: Option<Planning>,
    /// The network that answers while the server is away.
    pub(super) fallback: Option<Local>,
    /// The energy that frames take, where that is accounted for.
    pub(super) spending: Option<Arc<Spending>>,
    /// Where decisions are recorded, and what records them.
    pub(super) decisions: Option<(DecisionLog, DecisionFile)>,
}

/// The settings that sources are opened with. While they stay the same, sources stay open.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SourceSettings {
    texts: Vec<OsString>,
    passes: Option<u64>,
    stall: Duration,
    every: bool,
}

/// The inputs of the networks that see the frames; none where the frames are needed as images anyway, to be drawn on or to be
/// sent as they are.
pub(super) fn views(config: &Config, bundle: &Bundle) -> Arc<[Geometry]> {
    let is_sent = config.path == Path::Image && config.framing == Framing::Original;
    if config.out.is_some() || is_sent {
        return Arc::default();
    }
    let sees_geometry = config.path != Path::Local || config.gate.is_some();
    let geometry = bundle.geometries().get(config.geometry.index()).filter(|_| sees_geometry);
    let sees_local = config.path == Path::Local || config.exit.is_some();
    let local = bundle.local().map(|local| &local.geometry).filter(|_| sees_local);
    geometry.into_iter().chain(local).cloned().collect()
}

impl Parts {
    /// Opens what the flags name. Cameras are opened later, when the first frame is wanted.
    ///
    /// # Errors
    /// What cannot be used.
    pub(super) fn open(flags: &Flags, shared: &Shared) -> Result<Self, Error> {
        let began = present();
        let totals = &shared.totals;
        let specs = flags.source.iter().map(|text| Spec::parse(text)).collect::<Result<Vec<_>, _>>()?;
        let mut bundle = flags.signature.open(&flags.bundle)?;
        let mut config = Config::new(flags, &bundle, specs.iter().any(Spec::is_live))?;
        if let Some((_, folder)) = &config.servers
            && let Err(error) = settle(folder)
        {
            // What can be read is used, and what cannot is said below.
            tracing::warn!("{}", Chain(&error));
        }
        let identity = config.servers.as_ref().map(|(_, folder)| identity::load(folder)).transpose()?;
        let settings = Settings {
            passes: config.repeat,
            budget: config.budget,
            rate: config.fps,
            stall: config.stall,
            every: config.every_frame,
            began,
            views: views(&config, &bundle),
        };
        let source_settings = SourceSettings {
            texts: flags.source.clone(),
            passes: config.repeat,
            stall: config.stall,
            every: config.every_frame,
        };
        let sources = Sources::open(&specs, &settings, totals)?;
        let pictures = config.out.as_deref().map(PictureFolder::create).transpose()?;
        let device = identity::device_name(config.device.as_deref(), identity.as_ref());
        let servers = config.servers.clone().zip(identity).map(|((servers, _), identity)| {
            let tasks = config.tasks.iter().map(|&task| bundle.tasks()[task].name.clone()).collect();
            let id = BundleId(*bundle.digest().bytes());
            let access = Access::new(identity, config.tuning.clone(), id, tasks)?;
            let access = Arc::new(access.planned(config.level == Level::Auto));
            Ok::<_, Error>(Arc::new(Servers::new(
                servers,
                &access,
                config.server_choice,
                config.return_after,
            )))
        });
        let servers = servers.transpose()?;
        let renewal = config
            .servers
            .as_ref()
            .zip(servers.as_ref())
            .map(|((_, folder), servers)| Renewal::new(folder, &config.renew_at, servers.access()));
        let renewal = renewal.transpose()?;
        // The spool of a run stays the same.
        if let (Some(spool), None) = (&config.spool, totals.spool()) {
            let folder = crate::name::Escaped(&spool.folder).to_string();
            totals.add_spool(Arc::new(SpoolTally::new(folder)));
        }
        if let Some(energy) = &mut config.energy
            && config.measures_watts
            && let Some((watts, rails)) = shared.watts(|| watts::measured(&bundle, config.geometry))
        {
            tracing::warn!("--for energy: computing adds {watts:.1} W, measured at {rails}");
            energy.computing = watts;
        }
        let spending = config.energy.map(|model| Arc::new(Spending::new(model)));
        let stages = Stages::open(&bundle, &config, spending.as_ref())?;
        let decisions = config
            .decisions
            .as_ref()
            .map(|settings| DecisionLog::open(settings, |tally| totals.add_sink(tally)));
        let decisions = decisions.transpose()?;
        let levels = Levels::new(&bundle, &config.tasks).filter(|_| config.level == Level::Auto);
        let planning = levels.zip(stages.level_encoder());
        let planning = planning.map(|(levels, encoder)| {
            let (waiting, energy) = (config.waiting, config.energy);
            let planner = PlannerConfig { waiting, energy, ..PlannerConfig::default() };
            let log = decisions.as_ref().map(|(log, _)| log.clone());
            Planning::new(encoder, levels, planner, spending.clone(), log)
        });
        let fallback = servers.is_some() && config.fallback;
        let policy = FixedPolicy::new(&config, bundle.tasks(), fallback, shared.demand.clone());
        let fallback =
            fallback.then(|| stages.local().map_or_else(|| Local::open(&bundle), Ok)).transpose()?;
        flags.signature.note(&bundle)?;
        bundle.release();
        Ok(Parts {
            config,
            device,
            bundle,
            sources,
            source_settings,
            pictures,
            stages,
            policy,
            servers,
            renewal,
            planning,
            fallback,
            spending,
            decisions,
        })
    }
}
