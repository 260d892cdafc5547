//! Frames, their answers, and the network that loses, delays and reorders them (R5, R8, R18).

/// What members send each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    /// The active's log up to a record, and its heartbeat (R5, R18).
    Frame {
        /// The sender's epoch.
        epoch: u8,
        /// The sender's incarnation, where grants of the dead are forgotten (R6); else 0.
        incarnation: u8,
        /// How many records of the epoch's log it carries.
        len: u8,
        /// Ticks of authority that a grant would give, counted from now (R5).
        ticks: u8,
        /// The sender had authority when it sent this (R5).
        serving: bool,
    },
    /// The answer of a follower (R5, R18).
    Answer {
        /// The frame's epoch.
        epoch: u8,
        /// The follower's incarnation.
        incarnation: u8,
        /// How many records it has received.
        len: u8,
        /// Whether it grants (R5).
        grants: bool,
        /// Ticks of authority that the grant gives, counted from sending the heartbeat (R5).
        ticks: u8,
    },
    /// The answer to a frame of an epoch below the promise (R8).
    Refused {
        /// The promise.
        promised: u8,
    },
}

/// Messages on their way to one member: a set, for the network may reorder them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Inbox([Option<Message>; Inbox::CAPACITY]);

impl Inbox {
    /// The most frames in one direction that any row allows.
    pub const CAPACITY: usize = 2;

    /// How many are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().flatten().count()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0[0].is_none()
    }

    /// The messages, in their own order.
    pub fn iter(&self) -> impl Iterator<Item = &Message> {
        self.0.iter().flatten()
    }

    /// Adds a message. An equal one under way stands for both.
    pub fn put(&mut self, message: Message) {
        if self.iter().any(|known| *known == message) {
            return;
        }
        let free = self.0.iter_mut().find(|place| place.is_none());
        *free.expect("nobody sends into a full inbox") = Some(message);
        self.sort();
    }

    /// Takes a message out.
    pub fn take(&mut self, at: usize) -> Message {
        let message = self.0[at].take().expect("only messages under way are taken");
        self.sort();
        message
    }

    /// Changes every message.
    pub fn for_each(&mut self, change: impl Fn(&mut Message)) {
        let before = std::mem::take(self);
        for mut message in before.0.into_iter().flatten() {
            change(&mut message);
            self.put(message);
        }
    }

    fn sort(&mut self) {
        self.0.sort_unstable_by_key(|message| (message.is_none(), *message));
    }
}
