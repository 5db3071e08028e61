//! The order in which the layers of a network run at one input size, and the memory between them, which is kept from image to
//! image.

use std::sync::{Arc, Mutex, PoisonError};

use narrows_int8::{Add, Conv, Error, Requant, Scratch};

/// The output of a convolution.
#[derive(Debug, Clone)]
pub(super) enum Finish {
    /// Activations, narrowed from the accumulators.
    Activations(Requant<u8>),
    /// The accumulators, i32. Only the last layer of a network has them.
    Accumulators,
}

/// A layer.
#[derive(Debug, Clone)]
pub(super) enum Operator {
    /// A convolution of u8 (row, column, channel).
    Conv(Arc<Conv>, Arc<Finish>),
    /// The sum of two u8 values of one shape.
    Add(Arc<Add>),
}

/// An operator and the values that it reads: value 0 is the image, node i computes value i + 1.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) inputs: Vec<usize>,
    pub(super) operator: Operator,
}

/// What the plans of a network share: only one image is in work at a time.
#[derive(Debug, Default)]
pub(super) struct Memory {
    scratch: Scratch,
    /// Buffers of values between layers. They only grow, so that what is overwritten is not filled before.
    values: Vec<Vec<u8>>,
    accumulators: Vec<i32>,
}

/// A network from u8 [height, width, 3] to accumulators of `rows` by `columns`, ready to run.
#[derive(Debug)]
pub(super) struct Plan {
    steps: Vec<Step>,
    memory: Arc<Mutex<Memory>>,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

#[derive(Debug)]
struct Step {
    operator: Operator,
    inputs: Vec<Place>,
    /// Height and width of the inputs.
    size: (usize, usize),
    /// Number of the buffer that is written, and the elements of the value.
    output: (usize, usize),
}

/// Where a value is while it is needed.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// The image, which the caller holds.
    Image,
    /// Buffer and elements.
    Buffer(usize, usize),
}

impl Plan {
    /// Plans `nodes`, of which the last computes the accumulators that are the output, for images of `height` by `width`.
    ///
    /// # Errors
    /// An [`Error`] with the index of the node that cannot run at this size.
    pub(super) fn new(
        nodes: &[Node],
        (height, width): (usize, usize),
        memory: &Arc<Mutex<Memory>>,
    ) -> Result<Plan, (usize, Error)> {
        let mut last_use = vec![0; nodes.len() + 1];
        for (index, node) in nodes.iter().enumerate() {
            node.inputs.iter().for_each(|&value| last_use[value] = index);
        }
        let (mut places, mut sizes) = (vec![Place::Image], vec![(height, width)]);
        let (mut free, mut buffers, mut steps) = (Vec::new(), 0, Vec::new());
        for (index, Node { inputs, operator }) in nodes.iter().enumerate() {
            let size = sizes[inputs[0]];
            let (output_size, elements) = match operator {
                Operator::Conv(conv, _) => {
                    let output = conv.output_size(size.0, size.1).map_err(|error| (index, error))?;
                    (output, output.0 * output.1 * conv.out_channels())
                }
                Operator::Add(_) => match places[inputs[0]] {
                    Place::Image => (size, size.0 * size.1 * 3),
                    Place::Buffer(_, elements) => (size, elements),
                },
            };
            // A buffer whose value is read by this node or a later one is not written.
            let buffer = free.pop().unwrap_or_else(|| {
                buffers += 1;
                buffers - 1
            });
            let done = |value: &usize| last_use[*value] == index;
            let mut ends: Vec<usize> = inputs.iter().copied().filter(done).collect();
            ends.dedup();
            free.extend(ends.into_iter().filter_map(|value| match places[value] {
                Place::Image => None,
                Place::Buffer(buffer, _) => Some(buffer),
            }));
            steps.push(Step {
                operator: operator.clone(),
                inputs: inputs.iter().map(|&value| places[value]).collect(),
                size,
                output: (buffer, elements),
            });
            places.push(Place::Buffer(buffer, elements));
            sizes.push(output_size);
        }
        let (rows, columns) = sizes[nodes.len()];
        Ok(Plan { steps, memory: Arc::clone(memory), height, width, rows, columns })
    }

    /// Runs the network and calls `take` with its accumulators (row, column, channel).
    ///
    /// # Errors
    /// The [`Error`] of a layer whose inputs are not of the planned sizes.
    pub(super) fn run<T>(&self, pixels: &[u8], take: impl FnOnce(&[i32]) -> T) -> Result<T, Error> {
        // Every layer writes its whole output, so what a panic left behind is never read.
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let Memory { scratch, values, accumulators } = &mut *memory;
        let mut found = 0;
        for Step { operator, inputs, size: (height, width), output: (buffer, elements) } in &self.steps {
            if values.len() <= *buffer {
                values.resize_with(buffer + 1, Vec::new);
            }
            let mut output = std::mem::take(&mut values[*buffer]);
            let read = |place: &Place| match *place {
                Place::Image => pixels,
                Place::Buffer(buffer, elements) => &values[buffer][..elements],
            };
            let result = match operator {
                Operator::Conv(conv, finish) => match &**finish {
                    Finish::Activations(requant) => {
                        let output = part(&mut output, *elements);
                        conv.run(read(&inputs[0]), *height, *width, requant, output, scratch)
                    }
                    Finish::Accumulators => {
                        found = *elements;
                        let output = part(accumulators, *elements);
                        conv.accumulate(read(&inputs[0]), *height, *width, output, scratch)
                    }
                },
                Operator::Add(add) => {
                    add.run(read(&inputs[0]), read(&inputs[1]), part(&mut output, *elements))
                }
            };
            values[*buffer] = output;
            result?;
        }
        Ok(take(&accumulators[..found]))
    }
}

/// The first elements of a buffer, which grows where it is shorter.
fn part<T: Copy + Default>(buffer: &mut Vec<T>, elements: usize) -> &mut [T] {
    if buffer.len() < elements {
        buffer.resize(elements, T::default());
    }
    &mut buffer[..elements]
}

#[cfg(test)]
mod tests {
    use narrows_int8::{ConvKind, ConvSpec, Isa, Pads, Term};

    use super::*;

    /// Multiplies each of three channels by `weight`.
    fn scaled(weight: i8) -> ConvSpec {
        ConvSpec {
            kind: ConvKind::Depthwise,
            in_channels: 3,
            out_channels: 3,
            kernel: [1, 1],
            stride: [1, 1],
            pads: Pads::default(),
            input_zero: 0,
            weights: vec![weight; 3],
            bias: vec![0; 3],
        }
    }

    fn conv(weight: i8, finish: Finish) -> Operator {
        Operator::Conv(Conv::new(&scaled(weight), Isa::detect()).unwrap().into(), finish.into())
    }

    fn activations() -> Finish {
        Finish::Activations(Requant::new(&[1.0; 3], 0).unwrap())
    }

    #[test]
    fn values_are_kept_until_their_last_reader_and_buffers_are_used_again() {
        let term = || Term { zero: 0, mult: 1.0 };
        let add = || Operator::Add(Add::new(term(), term(), 0, Isa::detect()).unwrap().into());
        let nodes = [
            Node { inputs: vec![0], operator: conv(2, activations()) },
            Node { inputs: vec![1], operator: conv(3, activations()) },
            // 2x + 6x, where 2x was made before 6x.
            Node { inputs: vec![1, 2], operator: add() },
            Node { inputs: vec![3], operator: conv(1, activations()) },
            // The same value twice.
            Node { inputs: vec![4, 4], operator: add() },
            Node { inputs: vec![5], operator: conv(1, Finish::Accumulators) },
        ];
        let memory = Arc::default();
        let plans = [(1, 2), (2, 2)].map(|size| Plan::new(&nodes, size, &memory).unwrap());
        assert_eq!((plans[0].rows, plans[0].columns), (1, 2));
        for plan in [0, 1, 0] {
            let pixels: Vec<u8> = (1..=6).cycle().take([6, 12][plan]).collect();
            let wanted: Vec<i32> = pixels.iter().map(|&pixel| 16 * i32::from(pixel)).collect();
            assert_eq!(plans[plan].run(&pixels, <[i32]>::to_vec).unwrap(), wanted);
        }
        assert!(memory.lock().unwrap().values.len() <= 4, "buffers are used again");
    }

    #[test]
    fn a_layer_that_cannot_run_is_named_by_its_index() {
        let mut large = scaled(1);
        (large.kernel, large.weights) = ([3, 3], vec![1; 27]);
        let large =
            Operator::Conv(Conv::new(&large, Isa::Portable).unwrap().into(), Finish::Accumulators.into());
        let nodes = [
            Node { inputs: vec![0], operator: conv(1, activations()) },
            Node { inputs: vec![1], operator: large },
        ];
        let (node, _) = Plan::new(&nodes, (2, 2), &Arc::default()).unwrap_err();
        assert_eq!(node, 1);
    }
}
