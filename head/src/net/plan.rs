//! Quantised convolutions and sums as operators of tract, and the plan that runs them.

use std::sync::{Arc, Mutex, PoisonError};

use narrows_int8::{Add, Conv, Requant, Scratch};
use tract_onnx::{prelude::*, tract_core::internal::*};

/// The output of a convolution.
#[derive(Debug, Clone)]
pub(super) enum Finish {
    /// Activations, narrowed from the accumulators.
    Activations(Requant<u8>),
    /// The accumulators, i32.
    Accumulators,
}

/// A convolution on the int8 kernels: u8 [1, height, width, channels] to u8 or i32 in the same order.
#[derive(Debug, Clone)]
pub(super) struct Int8Conv {
    pub(super) conv: Arc<Conv>,
    pub(super) finish: Arc<Finish>,
    pub(super) scratch: Arc<Mutex<Scratch>>,
}

impl PartialEq for Int8Conv {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.conv, &other.conv) && Arc::ptr_eq(&self.finish, &other.finish)
    }
}

impl Eq for Int8Conv {}

impl Int8Conv {
    /// Returns height and width of the input, and those of the output.
    fn sizes(&self, shape: &[usize]) -> TractResult<[(usize, usize); 2]> {
        let &[1, height, width, channels] = shape else { bail!("an input of shape {shape:?}") };
        ensure!(channels == self.conv.in_channels(), "{channels} input channels");
        Ok([(height, width), self.conv.output_size(height, width)?])
    }
}

impl Op for Int8Conv {
    fn name(&self) -> StaticName {
        "Int8Conv".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Int8Conv {
    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let [(height, width), (rows, columns)] = self.sizes(input.shape())?;
        let shape = [1, rows, columns, self.conv.out_channels()];
        let view = input.try_as_plain_ram()?;
        let pixels = view.as_slice::<u8>()?;
        // The lock may be poisoned: no layer relies on what the scratch holds.
        let scratch = &mut *self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let output = match &*self.finish {
            Finish::Activations(requant) => {
                let mut output = Tensor::zero::<u8>(&shape)?;
                let mut view = output.try_as_plain_ram_mut()?;
                self.conv.run(pixels, height, width, requant, view.as_slice_mut::<u8>()?, scratch)?;
                output
            }
            Finish::Accumulators => {
                let mut output = Tensor::zero::<i32>(&shape)?;
                let mut view = output.try_as_plain_ram_mut()?;
                self.conv.accumulate(pixels, height, width, view.as_slice_mut::<i32>()?, scratch)?;
                output
            }
        };
        Ok(tvec!(output.into_tvalue()))
    }

    op_out_of_plan!();
}

impl TypedOp for Int8Conv {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs.len() == 1 && inputs[0].datum_type == u8::datum_type(), "one u8 input");
        let shape = inputs[0].shape.as_concrete().context("a symbolic shape")?;
        let [_, (rows, columns)] = self.sizes(shape)?;
        let shape = [1, rows, columns, self.conv.out_channels()];
        Ok(tvec!(match &*self.finish {
            Finish::Activations(_) => u8::fact(shape),
            Finish::Accumulators => i32::fact(shape),
        }))
    }

    as_op!();
}

/// The sum of two u8 values of one shape.
#[derive(Debug, Clone)]
pub(super) struct Int8Add {
    pub(super) add: Arc<Add>,
}

impl PartialEq for Int8Add {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.add, &other.add)
    }
}

impl Eq for Int8Add {}

impl Op for Int8Add {
    fn name(&self) -> StaticName {
        "Int8Add".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Int8Add {
    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (a, b) = args_2!(inputs);
        let mut output = Tensor::zero::<u8>(a.shape())?;
        let (a, b) = (a.try_as_plain_ram()?, b.try_as_plain_ram()?);
        let mut view = output.try_as_plain_ram_mut()?;
        self.add.run(a.as_slice::<u8>()?, b.as_slice::<u8>()?, view.as_slice_mut::<u8>()?)?;
        Ok(tvec!(output.into_tvalue()))
    }

    op_out_of_plan!();
}

impl TypedOp for Int8Add {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs.len() == 2 && inputs[0].shape == inputs[1].shape, "two inputs of one shape");
        ensure!(inputs.iter().all(|input| input.datum_type == u8::datum_type()), "u8 inputs");
        Ok(tvec!(u8::fact(inputs[0].shape.clone())))
    }

    as_op!();
}

/// An operator of a plan.
pub(super) enum Operator {
    Conv(Int8Conv),
    Add(Int8Add),
}

/// An operator, its name and the values that it reads: value 0 is the image, node i computes value i + 1.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) inputs: Vec<usize>,
    pub(super) operator: Operator,
}

/// A network from u8 [1, height, width, 3] to accumulators of `rows` by `columns`, ready to run.
pub(super) struct Plan {
    runnable: Arc<TypedRunnableModel>,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl Plan {
    /// Plans `nodes`, of which the last computes the output, for images of `height` by `width`.
    pub(super) fn new(input: &str, nodes: &[Node], height: usize, width: usize) -> TractResult<Plan> {
        let mut model = TypedModel::default();
        let mut values = vec![model.add_source(input, u8::fact([1, height, width, 3]))?];
        for Node { name, inputs, operator } in nodes {
            let inputs: TVec<OutletId> = inputs.iter().map(|&value| values[value]).collect();
            values.extend(match operator {
                Operator::Conv(conv) => model.wire_node(name, conv.clone(), &inputs)?,
                Operator::Add(add) => model.wire_node(name, add.clone(), &inputs)?,
            });
        }
        let outlets = &values[values.len() - 1..];
        let shape = model.outlet_fact(outlets[0])?.shape.as_concrete().map(<[usize]>::to_vec);
        let Some(&[1, rows, columns, _]) = shape.as_deref() else { bail!("an output of shape {shape:?}") };
        model.select_output_outlets(outlets)?;
        let runnable = model.into_optimized()?.into_runnable()?;
        Ok(Plan { runnable, height, width, rows, columns })
    }

    /// Runs the network and calls `take` with its accumulators (row, column, channel).
    pub(super) fn run<T>(&self, pixels: &[u8], take: impl FnOnce(&[i32]) -> T) -> TractResult<T> {
        let input = Tensor::from_shape(&[1, self.height, self.width, 3], pixels)?;
        let outputs = self.runnable.run(tvec!(input.into_tvalue()))?;
        let view = outputs[0].try_as_plain_ram()?;
        Ok(take(view.as_slice::<i32>()?))
    }
}
