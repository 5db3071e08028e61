//! Runs ONNX files by tract on u8 images of zeros: `narrows-arm-tract TIMES NAME=FILE…`. Every network runs once, and then
//! TIMES times between two calls of getppid, which `bench/arm/count.c` takes for marks. Their names go to standard output.

use std::{env, error::Error, hint::black_box, os::unix::process::parent_id};

use tract_onnx::prelude::*;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let times: u32 = args.next().ok_or("how often?")?.parse()?;
    for arg in args {
        let (name, file) = arg.split_once('=').ok_or("NAME=FILE is wanted")?;
        let model = tract_onnx::onnx().model_for_path(file)?.into_optimized()?;
        let shape = model.input_fact(0)?.shape.as_concrete().ok_or("a symbolic shape")?.to_vec();
        let model = model.into_runnable()?;
        let run = || -> TractResult<()> {
            let input = Tensor::zero::<u8>(&shape)?;
            black_box(model.run(tvec!(input.into_tvalue()))?);
            Ok(())
        };
        run()?;
        black_box(parent_id());
        for _ in 0..times {
            run()?;
        }
        black_box(parent_id());
        println!("{name}");
    }
    Ok(())
}
