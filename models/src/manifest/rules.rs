//! The rules that several tables of a manifest share.

use crate::{Digest, Error};

/// The rule for names, as errors state it.
pub(super) const NAME: &str = "1 to 64 characters out of a-z 0-9 . _ -";
/// Most vectors in a list.
pub(super) const VECTORS_MAX: usize = 256;

/// The parts that have a digest.
pub(super) struct Parts<'a>(pub(super) &'a [(String, Digest)]);

impl Parts<'_> {
    /// Returns `part` if it has a digest; `field` names it in the error.
    pub(super) fn part(&self, field: &str, part: String) -> Result<String, Error> {
        let known = self.0.iter().any(|(name, _)| *name == part);
        rule(known, field, format!("`{part}` has no entry in [digests]"))?;
        Ok(part)
    }
}

/// Checks every entry of a list; the first argument of `check` is `name[index]`.
pub(super) fn each<R, T>(
    name: &str,
    raw: Vec<R>,
    mut check: impl FnMut(&str, R) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    raw.into_iter().enumerate().map(|(index, raw)| check(&format!("{name}[{index}]"), raw)).collect()
}

/// Checks that no name is in the list twice.
pub(super) fn unique<'a>(field: &str, names: impl Iterator<Item = &'a String>) -> Result<(), Error> {
    let mut names: Vec<_> = names.collect();
    names.sort();
    let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
    twice.map_or(Ok(()), |pair| Err(Error::field(field, format!("{:?} stands twice", pair[0]))))
}

/// Fails with `reason` unless the rule holds.
pub(super) fn rule(holds: bool, field: impl Into<String>, reason: impl Into<String>) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::field(field, reason)) }
}

/// Whether `name` may be the name of a bundle, a geometry or a task.
pub(super) fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    (1..=64).contains(&name.len()) && name.chars().all(good)
}

/// Whether `part` may be the path of a part.
pub(super) fn is_part(part: &str) -> bool {
    let good = |piece: &str| !piece.is_empty() && piece != "." && piece != "..";
    part != "manifest.toml"
        && part.len() <= 255
        && !part.contains(['\\', ':', '\0'])
        && part.split('/').all(good)
}
