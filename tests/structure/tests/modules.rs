//! Files of a crate use each other in one direction: no cycles, and layers stay in their order.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Item, ItemMod, Macro, UseTree, Visibility, visit::Visit};

/// The crates whose files are checked, by the file that begins them.
const CRATES: &[&str] = &[
    "codec/src/lib.rs",
    "models/src/lib.rs",
    "wire/src/lib.rs",
    "head/src/lib.rs",
    "head/int8/src/lib.rs",
    "head/pixels/src/lib.rs",
    "head/policy/src/lib.rs",
    "head/power/src/lib.rs",
    "head/video/src/lib.rs",
    "http/src/lib.rs",
    "service/src/lib.rs",
    "tail/src/lib.rs",
    "tail/scheduler/src/lib.rs",
    "bench/src/lib.rs",
    "bench/eval/src/lib.rs",
    "bench/netsim/src/lib.rs",
    "bench/pair/src/lib.rs",
];

/// Layers of a crate, lowest first: a file uses its own layer and those before it, never one behind it.
const LAYERS: &[(&str, &[&str])] = &[
    ("codec/src", &["format", "rans", "context", "tables", "encode"]),
    ("head/src", &["source", "stage", "uplink", "sink", "run"]),
    ("tail/src", &["engine/ort", "engine", "frontend", "status", "serve"]),
];

#[test]
fn files_of_a_crate_do_not_use_each_other_in_circles() {
    let mut found = Vec::new();
    for root in CRATES {
        let uses = Crate::read(root).uses();
        found.extend(cycles(&uses).into_iter().map(|files| format!("{root}: {}", files.join(" <-> "))));
    }
    assert!(found.is_empty(), "files that use each other in circles:\n{}", found.join("\n"));
}

#[test]
fn layers_of_a_crate_are_used_in_one_direction() {
    for (folder, layers) in LAYERS {
        let uses = Crate::read(&format!("{folder}/lib.rs")).uses();
        let layer = |file: &str| {
            let module = file.strip_prefix(&format!("{folder}/"))?.strip_suffix(".rs")?;
            layers.iter().position(|layer| module == *layer || module.starts_with(&format!("{layer}/")))
        };
        for (place, name) in layers.iter().enumerate() {
            assert!(uses.keys().any(|file| layer(file) == Some(place)), "{folder} has no layer {name}");
        }
        for (file, used) in &uses {
            for other in used {
                if let (Some(from), Some(to)) = (layer(file), layer(other)) {
                    assert!(from >= to, "{file} uses {other}, which is a layer above it");
                }
            }
        }
    }
}

#[test]
fn a_circle_is_found() {
    let uses = |pairs: &[(&str, &str)]| {
        let mut uses = BTreeMap::<String, BTreeSet<String>>::new();
        for (from, to) in pairs {
            uses.entry((*from).to_owned()).or_default().insert((*to).to_owned());
            uses.entry((*to).to_owned()).or_default();
        }
        cycles(&uses)
    };
    assert!(uses(&[("a", "b"), ("b", "c"), ("a", "c")]).is_empty());
    assert_eq!(uses(&[("a", "b"), ("b", "c"), ("c", "b")]), [["b", "c"]]);
}

#[test]
fn re_exports_are_followed_to_the_file_that_defines() {
    let mut lib = Crate { modules: BTreeMap::new() };
    for (module, file, text) in [
        (vec![], "lib.rs", "mod one; mod two; pub use one::Thing;"),
        (vec!["one"], "one.rs", "pub struct Thing;"),
        (vec!["two"], "two.rs", "use crate::Thing; fn f() { format!(\"{}\", crate::one::x()) }"),
    ] {
        let module: Vec<String> = module.into_iter().map(str::to_owned).collect();
        lib.add(&module, file, &syn::parse_file(text).expect("Rust").items);
    }
    let uses = lib.uses();
    assert_eq!(uses["two.rs"], BTreeSet::from(["one.rs".to_owned()]));
    assert!(uses["lib.rs"].is_empty() && uses["one.rs"].is_empty());
}

/// The modules of a crate, by path.
struct Crate {
    modules: BTreeMap<Vec<String>, Module>,
}

/// What is known of one module.
#[derive(Default)]
struct Module {
    file: String,
    /// Names that it re-exports or imports, and where they come from; `*` for globs.
    imports: Vec<(String, Vec<String>)>,
    /// Every path that its code names, not counting re-exports.
    paths: Vec<Vec<String>>,
}

impl Crate {
    fn read(root: &str) -> Self {
        let mut found = Crate { modules: BTreeMap::new() };
        found.read_file(&[], Path::new(root));
        found
    }

    fn read_file(&mut self, module: &[String], file: &Path) {
        let text =
            fs::read_to_string(workspace().join(file)).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let items = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display())).items;
        for child in self.add(module, file.to_str().expect("a path of this project"), &items) {
            let path: Vec<String> = module.iter().cloned().chain([child.clone()]).collect();
            let beside = match file.file_stem().and_then(|stem| stem.to_str()) {
                Some("lib" | "main" | "mod") => file.with_file_name(""),
                _ => file.with_extension(""),
            };
            let own = [beside.join(format!("{child}.rs")), beside.join(&child).join("mod.rs")];
            let own = own.into_iter().find(|own| workspace().join(own).is_file());
            self.read_file(
                &path,
                &own.unwrap_or_else(|| panic!("{}: no file of mod {child}", file.display())),
            );
        }
    }

    /// Takes in the items of a module and of the modules inside it; returns the modules that have files of their own.
    fn add(&mut self, path: &[String], file: &str, items: &[Item]) -> Vec<String> {
        let mut module = Module { file: file.to_owned(), ..Module::default() };
        let (mut elsewhere, mut inside) = (Vec::new(), Vec::new());
        for item in items {
            match item {
                Item::Mod(ItemMod { attrs, .. }) if is_test(attrs) => {}
                Item::Mod(ItemMod { ident, content: None, .. }) => elsewhere.push(ident.to_string()),
                Item::Mod(ItemMod { ident, content: Some((_, items)), .. }) => {
                    inside.push((ident.to_string(), items));
                }
                Item::Use(import) => {
                    let mut leaves = Vec::new();
                    leaves_of(&import.tree, &mut Vec::new(), &mut leaves);
                    for (name, leaf) in leaves {
                        if matches!(import.vis, Visibility::Inherited) {
                            module.paths.push(leaf.clone());
                        }
                        module.imports.push((name, leaf));
                    }
                }
                item => Paths(&mut module.paths).visit_item(item),
            }
        }
        self.modules.insert(path.to_vec(), module);
        for (name, items) in inside {
            let path: Vec<String> = path.iter().cloned().chain([name]).collect();
            let files = self.add(&path, file, items);
            assert!(files.is_empty(), "{file}: a file inside an inline module");
        }
        elsewhere
    }

    /// For each file, the files of the crate that it uses.
    fn uses(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut uses: BTreeMap<String, BTreeSet<String>> =
            self.modules.values().map(|module| (module.file.clone(), BTreeSet::new())).collect();
        for (path, module) in &self.modules {
            for used in &module.paths {
                let target = self.absolute(path, used).and_then(|used| self.definer(&used, 16));
                if let Some(file) = target.filter(|file| *file != module.file) {
                    uses.entry(module.file.clone()).or_default().insert(file);
                }
            }
        }
        uses
    }

    /// `used`, as it stands in `module`, from the root of the crate; none for what is not of the crate.
    fn absolute(&self, module: &[String], used: &[String]) -> Option<Vec<String>> {
        let mut base = module.to_vec();
        let mut rest = used;
        match used.first()?.as_str() {
            "crate" => (base, rest) = (Vec::new(), &used[1..]),
            "self" => rest = &used[1..],
            "super" => {
                while rest.first().is_some_and(|first| first == "super") {
                    base.pop()?;
                    rest = &rest[1..];
                }
            }
            first => {
                base.push(first.to_owned());
                if !self.modules.contains_key(&base) {
                    return None;
                }
                base.pop();
            }
        }
        Some(base.into_iter().chain(rest.iter().cloned()).collect())
    }

    /// The file that defines what an absolute path names.
    fn definer(&self, path: &[String], hops: usize) -> Option<String> {
        let mut at = 0;
        while at < path.len() && self.modules.contains_key(&path[..=at]) {
            at += 1;
        }
        let module = &self.modules[&path[..at]];
        let Some(name) = path.get(at).filter(|_| hops > 0) else { return Some(module.file.clone()) };
        let imported = |(known, from): &(String, Vec<String>)| {
            let mut from = self.absolute(&path[..at], from)?;
            if known == "*" {
                from.push(name.clone());
                let file = self.definer(&from, hops - 1)?;
                let own = self.modules.get(&from[..from.len() - 1])?;
                return own.file.ne(&file).then_some(file);
            }
            from.extend_from_slice(&path[at + 1..]);
            (known == name).then(|| self.definer(&from, hops - 1)).flatten()
        };
        module.imports.iter().find_map(imported).or_else(|| Some(module.file.clone()))
    }
}

/// Collects the paths that code names, also those inside macros.
struct Paths<'a>(&'a mut Vec<Vec<String>>);

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.0.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !is_test(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let mut leaves = Vec::new();
        leaves_of(&item.tree, &mut Vec::new(), &mut leaves);
        self.0.extend(leaves.into_iter().map(|(_, leaf)| leaf));
    }

    fn visit_macro(&mut self, code: &'ast Macro) {
        paths_in(code.tokens.clone(), self.0);
    }
}

fn paths_in(tokens: TokenStream, paths: &mut Vec<Vec<String>>) {
    let mut path: Vec<String> = Vec::new();
    let mut colons = 0;
    for token in tokens {
        match token {
            TokenTree::Ident(name) => {
                if colons != 2 {
                    path.clear();
                }
                path.push(name.to_string());
                if path.len() > 1 {
                    paths.push(path.clone());
                }
                colons = 0;
            }
            TokenTree::Punct(sign) if sign.as_char() == ':' => colons += 1,
            other => {
                path.clear();
                colons = 0;
                if let TokenTree::Group(group) = other {
                    paths_in(group.stream(), paths);
                }
            }
        }
    }
}

/// The names that a use item brings in, each with its path.
fn leaves_of(tree: &UseTree, path: &mut Vec<String>, leaves: &mut Vec<(String, Vec<String>)>) {
    match tree {
        UseTree::Path(step) => {
            path.push(step.ident.to_string());
            leaves_of(&step.tree, path, leaves);
            path.pop();
        }
        UseTree::Name(name) if name.ident == "self" => {
            leaves.push((path.last().cloned().unwrap_or_default(), path.clone()));
        }
        UseTree::Name(name) => {
            let name = name.ident.to_string();
            leaves.push((name.clone(), path.iter().cloned().chain([name]).collect()));
        }
        UseTree::Rename(named) => {
            let from = path.iter().cloned().chain([named.ident.to_string()]).filter(|step| step != "self");
            leaves.push((named.rename.to_string(), from.collect()));
        }
        UseTree::Glob(_) => leaves.push(("*".to_owned(), path.clone())),
        UseTree::Group(group) => group.items.iter().for_each(|item| leaves_of(item, path, leaves)),
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
    })
}

/// Sets of files each of which reaches the others.
fn cycles(uses: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let reach = |from: &str| {
        let (mut seen, mut left) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(file) = left.pop() {
            for next in uses.get(&file).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    left.push(next.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<String>> =
        uses.keys().map(|file| (file.as_str(), reach(file))).collect();
    let mut found = BTreeSet::new();
    for (file, seen) in &reached {
        if seen.contains(*file) {
            let circle = seen.iter().filter(|other| reached[other.as_str()].contains(*file));
            found.insert(circle.cloned().collect::<Vec<String>>());
        }
    }
    found.into_iter().collect()
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
