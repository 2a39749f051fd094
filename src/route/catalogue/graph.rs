//! Who reaches whom: a graph of numbered nodes, and what spreads backwards along its edges.

use std::collections::HashMap;

/// Numbers for names; the same name always gets the same.
#[derive(Debug, Default)]
pub struct Numbers(HashMap<Box<[u8]>, u32>);

impl Numbers {
    pub fn add(&mut self, name: Box<[u8]>) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(name).or_insert(next)
    }

    pub fn get(&self, name: &[u8]) -> Option<u32> {
        self.0.get(name).copied()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], u32)> {
        self.0.iter().map(|(name, &number)| (&**name, number))
    }

    pub fn into_names(self) -> impl Iterator<Item = (Box<[u8]>, u32)> {
        self.0.into_iter()
    }
}

/// Edges from what reaches to what is reached.
pub(super) struct Graph {
    reached_by: Vec<Vec<u32>>,
}

impl Graph {
    pub fn new(nodes: usize) -> Self {
        Graph {
            reached_by: vec![Vec::new(); nodes],
        }
    }

    /// `from` reaches `to`.
    pub fn edge(&mut self, from: u32, to: u32) {
        if from != to {
            self.reached_by[to as usize].push(from);
        }
    }

    /// Gives every node that reaches one with a mark a mark, too: that of one that it reaches.
    pub fn spread<T: Copy>(&self, marks: &mut [Option<T>]) {
        let marked = (0..marks.len() as u32).filter(|&n| marks[n as usize].is_some());
        let mut todo: Vec<u32> = marked.collect();
        while let Some(node) = todo.pop() {
            for &from in &self.reached_by[node as usize] {
                if marks[from as usize].is_none() {
                    marks[from as usize] = marks[node as usize];
                    todo.push(from);
                }
            }
        }
    }
}
