//! Which instances steps are under way of: whoever looks at them meanwhile sees neither the one nor the other.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::InstanceId;

/// See the module. For one who looks at a time.
#[derive(Debug, Default)]
pub struct Underway(Mutex<Instances>);

#[derive(Debug, Default)]
struct Instances {
    now: HashSet<InstanceId>,
    /// Those that a step was under way of since the look began.
    touched: HashSet<InstanceId>,
}

/// A step that is under way until this is dropped.
#[derive(Debug)]
pub struct Begun<'a> {
    underway: &'a Underway,
    id: InstanceId,
}

impl Underway {
    pub(super) fn begin(&self, id: InstanceId) -> Begun<'_> {
        let mut instances = self.lock();
        instances.now.insert(id);
        instances.touched.insert(id);
        Begun { underway: self, id }
    }

    /// A look begins.
    pub fn watch(&self) {
        let mut instances = self.lock();
        instances.touched = instances.now.clone();
    }

    /// The instances of which a step was under way since it began.
    pub fn touched(&self) -> HashSet<InstanceId> {
        self.lock().touched.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Instances> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.underway.lock().now.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::instance_id;

    #[test]
    fn a_step_that_began_before_a_look_or_ended_within_it_counts() {
        let (underway, [early, within, late]) = (Underway::default(), [(); 3].map(|()| instance_id()));
        drop(underway.begin(late));
        let begun = underway.begin(early);
        underway.watch();
        drop(underway.begin(within));
        drop(begun);
        assert_eq!(underway.touched(), HashSet::from([early, within]));
        underway.watch();
        assert_eq!(underway.touched(), HashSet::new());
    }
}
