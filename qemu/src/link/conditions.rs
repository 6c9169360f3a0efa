// SPDX-License-Identifier: Apache-2.0
//! What a link does to the frames that it carries: loses some, delays all, knows one VLAN only. No input or output
//! here.

use super::frame;
use std::time::Duration;

/// How bad a link is. The default is a perfect one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Conditions {
    /// Of 100 frames, how many are lost, in each direction.
    pub loss: u8,
    /// Delay of each frame in each direction: a round trip takes twice as long.
    pub latency: Duration,
    /// VLAN (1 to 4094) whose tag frames carry on the device's side, and on the far side do not. What the device
    /// sends without this tag is dropped.
    pub vlan: Option<u16>,
    /// Seed of the choice of lost frames: the same number gives the same frames.
    pub seed: u64,
}

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the device to the network.
    Out,
    /// From the network to the device.
    In,
}

/// What happens to a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It arrives like this.
    Carried(Vec<u8>),
    /// The link lost it.
    Lost,
    /// It does not belong on this link: not of its VLAN, or no frame at all.
    Foreign,
}

/// One direction of a link.
#[derive(Debug, Clone)]
pub struct Lane {
    conditions: Conditions,
    direction: Direction,
    random: fastrand::Rng,
}

impl Lane {
    /// One direction of a link with these conditions.
    pub fn new(conditions: Conditions, direction: Direction) -> Self {
        // Each direction loses frames of its own.
        let random = fastrand::Rng::with_seed(conditions.seed.wrapping_mul(2) + u64::from(direction == Direction::In));
        Lane { conditions, direction, random }
    }

    /// What happens to the next frame.
    pub fn fate(&mut self, bytes: &[u8]) -> Fate {
        let changed = match (self.conditions.vlan, self.direction) {
            (None, _) => (bytes.len() >= frame::HEADER).then(|| bytes.to_vec()),
            (Some(id), Direction::Out) => frame::untagged(bytes, id),
            (Some(id), Direction::In) => frame::tagged(bytes, id),
        };
        match changed {
            None => Fate::Foreign,
            Some(_) if self.random.u8(..100) < self.conditions.loss => Fate::Lost,
            Some(bytes) => Fate::Carried(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: [u8; 60] = [7; 60];

    fn lost(conditions: Conditions, direction: Direction) -> Vec<bool> {
        let mut lane = Lane::new(conditions, direction);
        (0..10_000).map(|_| lane.fate(&FRAME) == Fate::Lost).collect()
    }

    #[test]
    fn a_perfect_link_changes_nothing() {
        let mut lane = Lane::new(Conditions::default(), Direction::Out);
        assert_eq!(lane.fate(&FRAME), Fate::Carried(FRAME.to_vec()));
        assert_eq!(lane.fate(&FRAME[..13]), Fate::Foreign);
    }

    #[test]
    fn loss_is_as_asked_and_the_same_every_time() {
        let conditions = Conditions { loss: 30, seed: 5, ..Conditions::default() };
        let first = lost(conditions, Direction::Out);
        let count = first.iter().filter(|l| **l).count();
        assert!((2800..3200).contains(&count), "{count}");
        assert_eq!(first, lost(conditions, Direction::Out));
        assert_ne!(first, lost(conditions, Direction::In));
        assert_ne!(first, lost(Conditions { seed: 6, ..conditions }, Direction::Out));
        let all = lost(Conditions { loss: 100, ..conditions }, Direction::In);
        assert!(all.iter().all(|l| *l));
    }

    #[test]
    fn a_tag_is_on_the_devices_side_only() {
        let conditions = Conditions { vlan: Some(12), ..Conditions::default() };
        let Fate::Carried(inside) = Lane::new(conditions, Direction::In).fate(&FRAME) else { panic!("not carried") };
        assert_eq!(inside.len(), FRAME.len() + 4);
        let mut out = Lane::new(conditions, Direction::Out);
        assert_eq!(out.fate(&inside), Fate::Carried(FRAME.to_vec()));
        assert_eq!(out.fate(&FRAME), Fate::Foreign);
    }
}
