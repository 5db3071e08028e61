//! The networks of the bundles as models with names, versions and tensors. Pure.
//!
//! `lite2.classify` is the whole network of a task, which takes images; `lite2.classify.tail` is its tail, which takes what
//! comes out of the bottleneck. A version is the beginning of the bundle's digest, as in metrics.

use narrows_models::{Bundle, TaskKind};
use serde_json::{Value, json};

use crate::{
    devices::Scope,
    engine::{BundleState, BundleStatus},
    frontend::metrics::version,
};

/// Fewest digits of a digest by which a version is named.
const DIGITS: usize = 8;
/// The platform that metadata name.
const PLATFORM: &str = "onnxruntime_onnx";

/// A model of one version.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) name: String,
    pub(super) served: BundleStatus,
    /// The index of its task in the bundle's manifest.
    pub(super) task: usize,
    /// Whether it takes images; else it is a tail.
    pub(super) unsplit: bool,
}

impl Model {
    pub(super) fn bundle(&self) -> &Bundle {
        &self.served.bundle
    }

    pub(super) fn version(&self) -> String {
        version(self.served.bundle.digest())
    }

    /// Whether its networks are in memory. Others are loaded when they are asked for.
    pub(super) fn is_loaded(&self) -> bool {
        self.served.state == BundleState::Loaded
    }

    /// The name of the network's own output.
    pub(super) fn output(&self) -> &str {
        let task = &self.bundle().tasks()[self.task];
        match &task.reference {
            Some(reference) if self.unsplit => &reference.output,
            _ => &task.output,
        }
    }

    /// The name of what is computed from that output: probabilities, or the class of each pixel.
    pub(super) fn derived(&self) -> &'static str {
        match self.bundle().tasks()[self.task].kind {
            TaskKind::Classify => "probabilities",
            TaskKind::Segment => "classes",
        }
    }

    /// The metadata that clients are told, with the versions of the model.
    pub(super) fn metadata(&self, versions: &[String]) -> Value {
        let tensor = |name: &str, datatype: &str, shape: &[i64]| json!({ "name": name, "datatype": datatype, "shape": shape });
        let bundle = self.bundle();
        let task = &bundle.tasks()[self.task];
        let channels = i64::try_from(bundle.head().channels).unwrap_or(i64::MAX);
        let inputs = match &task.reference {
            Some(reference) if self.unsplit => {
                vec![tensor(&reference.input, "UINT8", &[-1, -1, -1, 3]), tensor(FILE, "BYTES", &[-1])]
            }
            _ => {
                vec![tensor(&task.latent, "FP32", &[-1, channels, -1, -1]), tensor(&task.step, "FP32", &[-1])]
            }
        };
        let classes = i64::try_from(task.labels.len()).unwrap_or(i64::MAX);
        let outputs = match task.kind {
            TaskKind::Classify => {
                let shape = [-1, classes];
                vec![tensor(self.output(), "FP32", &shape), tensor(self.derived(), "FP32", &shape)]
            }
            TaskKind::Segment => vec![
                tensor(self.output(), "FP32", &[-1, classes, -1, -1]),
                tensor(self.derived(), "UINT8", &[-1, -1, -1]),
            ],
        };
        json!({
            "name": self.name,
            "versions": versions,
            "platform": PLATFORM,
            "inputs": inputs,
            "outputs": outputs,
        })
    }
}

/// The name of the input that takes image files.
pub(super) const FILE: &str = "file";

/// The models that a client with this scope may use, in the order of the bundles.
pub(super) fn usable(bundles: &[BundleStatus], scope: &Scope) -> Vec<Model> {
    let mut models = Vec::new();
    for served in bundles {
        let bundle = &served.bundle;
        if !scope.has_bundle(bundle.name(), &bundle.digest().to_string()) {
            continue;
        }
        let tasks = bundle.tasks().iter().enumerate().filter(|(_, task)| scope.has_task(&task.name));
        for (task, own) in tasks {
            let name = format!("{}.{}", bundle.name(), own.name);
            let model = |name: String, unsplit| Model { name, served: served.clone(), task, unsplit };
            if scope.images && served.serves_unsplit(task) {
                models.push(model(name.clone(), true));
            }
            models.push(model(format!("{name}.tail"), false));
        }
    }
    models
}

/// The versions of a model, the one last that is used where none is named: the last of those that are not leaving.
pub(super) fn versions<'a>(models: &'a [Model], name: &str) -> Vec<&'a Model> {
    let mut versions: Vec<&Model> = models.iter().filter(|model| model.name == name).collect();
    versions.sort_by_key(|model| !model.served.is_leaving);
    versions
}

/// The model of a name and a version, if one is given: the version in the bundle's manifest, or digits of its digest.
///
/// # Errors
/// What there is not.
pub(super) fn find(models: &[Model], name: &str, version: Option<&str>) -> Result<Model, String> {
    let versions = versions(models, name);
    let Some(newest) = versions.last() else { return Err(format!("there is no model {name:?}")) };
    let Some(wanted) = version else { return Ok((*newest).clone()) };
    let is_wanted = |model: &&&Model| {
        let digest = model.served.bundle.digest().to_string();
        wanted.len() >= DIGITS && digest.starts_with(wanted) || model.bundle().manifest().version() == wanted
    };
    let found = versions.iter().rev().find(is_wanted);
    found.map(|model| (*model).clone()).ok_or_else(|| {
        let known: Vec<String> = versions.iter().map(|model| model.version()).collect();
        format!("the model {name:?} has no version {wanted:?}; it has {}", known.join(", "))
    })
}
