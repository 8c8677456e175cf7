//! Label texts of path frames, interned: the walk and the path tree only handle [`LabelId`]s, text appears in the output alone.

use rustc_hash::FxHashMap;

/// Index of a label text.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LabelId(pub u32);

/// The interner. Ids are dense, in order of first use.
#[derive(Default, Debug)]
pub struct Labels {
    texts: Vec<Box<str>>,
    ids: FxHashMap<Box<str>, LabelId>,
}

impl Labels {
    /// The id of `text`.
    pub fn intern(&mut self, text: &str) -> LabelId {
        if let Some(id) = self.ids.get(text) {
            return *id;
        }
        let id = LabelId(u32::try_from(self.texts.len()).expect("fewer than 2^32 labels"));
        self.texts.push(text.into());
        self.ids.insert(text.into(), id);
        id
    }

    /// The text of `id`.
    #[must_use]
    pub fn text(&self, id: LabelId) -> &str {
        &self.texts[id.0 as usize]
    }

    /// All texts; `LabelId` is the index.
    #[must_use]
    pub fn into_texts(self) -> Vec<Box<str>> {
        self.texts
    }
}
