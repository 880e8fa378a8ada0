//! Choosing packages: from the names asked for to everything that must be installed.
//!
//! The rule is apt's without Recommends: of alternatives the first that can be installed, a choice
//! already made before a new one, of each name the highest version. "Can be installed" is decided
//! first, for everything within reach and without recursion (hostile indexes cannot exhaust the
//! stack), so the choice itself never has to go back on its word. Conflicts are checked at the end.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};

use crate::dependency::Group;
use crate::packages::{IndexError, Package, PackageSet, Priority};

/// The packages asked for cannot be installed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// No package of that name in the archive.
    #[error("there is no package '{name}' for {arch} in the archive; check the spelling and suite")]
    Unknown {
        /// The name asked for.
        name: String,
        /// The architecture.
        arch: String,
    },
    /// A dependency cannot be met.
    #[error("'{name}' cannot be installed: {chain}")]
    Unsatisfiable {
        /// The package asked for.
        name: String,
        /// How one dependency leads to another up to the one nobody meets.
        chain: String,
    },
    /// Two packages exclude each other.
    #[error("{first} and {second} cannot be installed together: {first} refuses '{relation}'")]
    Conflict {
        /// The package that refuses.
        first: String,
        /// The package that is refused.
        second: String,
        /// The relationship that says so.
        relation: String,
    },
    /// The index has a malformed relationship.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// A chosen package.
#[derive(Debug, Clone, Copy)]
pub struct Chosen<'a> {
    /// The package.
    pub package: &'a Package,
    /// True when it is only here because something depends on it.
    pub automatic: bool,
}

/// Everything a base system has to have: essential and required packages, and apt.
#[must_use]
pub fn base_names(set: &PackageSet) -> Vec<String> {
    let mut names: Vec<String> = set
        .iter()
        .filter(|p| p.essential || p.priority == Priority::Required || p.name == "apt")
        .map(|p| p.name.clone())
        .collect();
    names.sort();
    names
}

/// Chooses the packages to install so that `wanted` are installed, in an order in which a package
/// comes after what it pre-depends on, and, loops aside, after what it depends on.
///
/// # Errors
///
/// A name does not exist, a dependency cannot be met, two chosen packages exclude each other, or a
/// relationship is malformed.
pub fn resolve<'a>(
    set: &'a PackageSet,
    wanted: &[String],
) -> Result<Vec<Chosen<'a>>, ResolveError> {
    let mut roots = Vec::new();
    for name in wanted {
        let at = set.index_of(name).ok_or_else(|| ResolveError::Unknown {
            name: name.clone(),
            arch: set.arch().to_owned(),
        })?;
        roots.push(at);
    }
    let graph = Graph::reach(set, &roots)?;
    let broken = graph.uninstallable();
    if let Some((&at, name)) = roots.iter().zip(wanted).find(|(at, _)| broken.contains_key(at)) {
        return Err(ResolveError::Unsatisfiable {
            name: name.clone(),
            chain: graph.explain(at, &broken),
        });
    }
    let edges = graph.choose(&roots, &broken);
    check_conflicts(set, &edges)?;
    let explicit: BTreeSet<usize> = roots.into_iter().collect();
    Ok(order(set, &edges)
        .into_iter()
        .map(|at| Chosen { package: set.at(at), automatic: !explicit.contains(&at) })
        .collect())
}

/// A group of a package, with the packages that meet it.
struct Need {
    group: Group,
    pre: bool,
    /// Candidates, the preferred first.
    met_by: Vec<usize>,
}

/// Everything within reach of the roots.
struct Graph<'a> {
    set: &'a PackageSet,
    needs: HashMap<usize, Vec<Need>>,
    /// Packages in the order they were reached.
    reached: Vec<usize>,
}

/// The chosen packages, each with the packages it needs; true marks a pre-dependency.
type Edges = HashMap<usize, Vec<(usize, bool)>>;

impl<'a> Graph<'a> {
    fn reach(set: &'a PackageSet, roots: &[usize]) -> Result<Self, ResolveError> {
        let mut graph = Self { set, needs: HashMap::new(), reached: Vec::new() };
        let mut queue: VecDeque<usize> = roots.iter().copied().collect();
        while let Some(at) = queue.pop_front() {
            if graph.needs.contains_key(&at) {
                continue;
            }
            let package = set.at(at);
            let mut needs = Vec::new();
            let groups = package
                .pre_depends(set.arch())?
                .into_iter()
                .map(|g| (g, true))
                .chain(package.depends(set.arch())?.into_iter().map(|g| (g, false)));
            for (group, pre) in groups {
                let mut met_by = Vec::new();
                for relation in &group.alternatives {
                    for candidate in set.meeting(relation) {
                        if !met_by.contains(&candidate) {
                            met_by.push(candidate);
                        }
                    }
                }
                queue.extend(&met_by);
                needs.push(Need { group, pre, met_by });
            }
            graph.reached.push(at);
            graph.needs.insert(at, needs);
        }
        Ok(graph)
    }

    /// The packages that cannot be installed whatever is chosen, each with the number of the need
    /// that nobody (left) meets.
    fn uninstallable(&self) -> HashMap<usize, usize> {
        let mut broken: HashMap<usize, usize> = HashMap::new();
        loop {
            let before = broken.len();
            // Only what was broken in earlier rounds counts within a round, so that following the
            // reasons never goes in a circle.
            let mut round = Vec::new();
            for &at in self.reached.iter().filter(|at| !broken.contains_key(at)) {
                let unmet = self.needs[&at]
                    .iter()
                    .position(|need| need.met_by.iter().all(|c| broken.contains_key(c)));
                if let Some(unmet) = unmet {
                    round.push((at, unmet));
                }
            }
            broken.extend(round);
            if broken.len() == before {
                return broken;
            }
        }
    }

    fn explain(&self, at: usize, broken: &HashMap<usize, usize>) -> String {
        let mut text = String::new();
        let mut at = at;
        while let Some(need) = broken.get(&at).and_then(|&unmet| self.needs[&at].get(unmet)) {
            if !text.is_empty() {
                text.push_str(", and ");
            }
            let package = self.set.at(at);
            text.push_str(&format!("{} {} needs {}", package.name, package.version, need.group));
            match need.met_by.first() {
                Some(&next) => at = next,
                None => {
                    text.push_str(&self.near_miss(&need.group));
                    break;
                }
            }
        }
        text
    }

    /// Why nobody meets a group.
    fn near_miss(&self, group: &Group) -> String {
        let there: Vec<String> = group
            .alternatives
            .iter()
            .filter_map(|r| self.set.get(&r.name))
            .map(|p| format!("{} {}", p.name, p.version))
            .collect();
        if there.is_empty() {
            ", which the archive does not have".to_owned()
        } else {
            format!(", but the archive has {}", there.join(" and "))
        }
    }

    fn choose(&self, roots: &[usize], broken: &HashMap<usize, usize>) -> Edges {
        let mut edges: Edges = roots.iter().map(|&at| (at, Vec::new())).collect();
        let mut queue: VecDeque<usize> = roots.iter().copied().collect();
        let mut done = BTreeSet::new();
        while let Some(at) = queue.pop_front() {
            if !done.insert(at) {
                continue;
            }
            for need in &self.needs[&at] {
                let usable = || need.met_by.iter().copied().filter(|c| !broken.contains_key(c));
                let choice = usable().find(|c| edges.contains_key(c)).or_else(|| usable().next());
                let Some(choice) = choice else { continue };
                if let Entry::Vacant(new) = edges.entry(choice) {
                    new.insert(Vec::new());
                    queue.push_back(choice);
                }
                edges.entry(at).or_default().push((choice, need.pre));
            }
        }
        edges
    }
}

fn check_conflicts(set: &PackageSet, edges: &Edges) -> Result<(), ResolveError> {
    let mut chosen: Vec<usize> = edges.keys().copied().collect();
    chosen.sort_unstable();
    for &at in &chosen {
        let package = set.at(at);
        for relation in package.refuses(set.arch())?.iter().flat_map(|g| &g.alternatives) {
            for other in set.meeting(relation) {
                if other != at && edges.contains_key(&other) {
                    return Err(ResolveError::Conflict {
                        first: package.name.clone(),
                        second: set.at(other).name.clone(),
                        relation: relation.to_string(),
                    });
                }
            }
        }
    }
    Ok(())
}

/// Puts the chosen packages in order: pre-dependencies strictly, dependencies as far as they have
/// no loops.
fn order(set: &PackageSet, edges: &Edges) -> Vec<usize> {
    let wish = depth_first(set, edges);
    let rank: HashMap<usize, usize> = wish.iter().enumerate().map(|(i, &at)| (at, i)).collect();
    let mut waits: HashMap<usize, usize> = HashMap::new();
    let mut before: HashMap<usize, Vec<usize>> = HashMap::new();
    for (&at, needs) in edges {
        let pre: BTreeSet<usize> =
            needs.iter().filter(|(to, pre)| *pre && *to != at).map(|(to, _)| *to).collect();
        waits.insert(at, pre.len());
        for to in pre {
            before.entry(to).or_default().push(at);
        }
    }
    let mut ready: BinaryHeap<Reverse<usize>> =
        wish.iter().filter(|at| waits[at] == 0).map(|at| Reverse(rank[at])).collect();
    let mut placed = BTreeSet::new();
    let mut result = Vec::with_capacity(wish.len());
    while result.len() < wish.len() {
        let next = match ready.pop() {
            Some(Reverse(rank)) => wish[rank],
            // A loop of pre-dependencies: the archive is at fault; go on with the best wish.
            None => match wish.iter().find(|at| !placed.contains(*at)) {
                Some(&at) => at,
                None => break,
            },
        };
        if !placed.insert(next) {
            continue;
        }
        result.push(next);
        for &at in before.get(&next).into_iter().flatten() {
            let left = waits.entry(at).or_default();
            *left = left.saturating_sub(1);
            if *left == 0 {
                ready.push(Reverse(rank[&at]));
            }
        }
    }
    result
}

/// Post-order over all needs, pre-dependencies first, names in order; no recursion.
fn depth_first(set: &PackageSet, edges: &Edges) -> Vec<usize> {
    let by_name = |list: &mut Vec<(usize, bool)>| {
        list.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| set.at(a.0).name.cmp(&set.at(b.0).name)));
    };
    let mut starts: Vec<(usize, bool)> = edges.keys().map(|&at| (at, false)).collect();
    by_name(&mut starts);
    let mut seen = BTreeSet::new();
    let mut result = Vec::with_capacity(edges.len());
    for (start, _) in starts {
        let mut stack = vec![(start, None::<std::vec::IntoIter<(usize, bool)>>)];
        while let Some((at, iter)) = stack.last_mut() {
            let at = *at;
            let iter = match iter {
                Some(iter) => iter,
                None => {
                    if !seen.insert(at) {
                        stack.pop();
                        continue;
                    }
                    let mut list = edges.get(&at).cloned().unwrap_or_default();
                    by_name(&mut list);
                    iter.insert(list.into_iter())
                }
            };
            match iter.next() {
                Some((next, _)) if !seen.contains(&next) => stack.push((next, None)),
                Some(_) => {}
                None => {
                    result.push(at);
                    stack.pop();
                }
            }
        }
    }
    result
}

#[cfg(test)]
#[path = "resolve_test.rs"]
mod tests;
