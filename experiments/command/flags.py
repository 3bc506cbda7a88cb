"""The flags of the command."""

from absl import flags

SIZE = flags.DEFINE_string("size", "tiny", "which size of the study")
ARMS = flags.DEFINE_list("arms", None, "run only these arms, separated by commas")
SEEDS = flags.DEFINE_list("seeds", None, "run these seeds instead of the study's own")
SET = flags.DEFINE_multi_string("set", [], "change a field, as --set train.steps=200; repeatable")
WORKDIR = flags.DEFINE_string("workdir", None, "where a run keeps its files; it resumes them")
CHECKPOINTS = flags.DEFINE_string(
    "checkpoints", None, "a folder or gs://BUCKET/PATH for them; default: the workdir"
)
JOBS = flags.DEFINE_integer(
    "jobs", 0, "runs at the same time, each a process; 0 decides by itself", lower_bound=0
)
SHAPE = flags.DEFINE_multi_string("shape", [], "of `bench layer`: T,D,F,E,k; repeatable")
DTYPE = flags.DEFINE_string("dtype", "float32", "of `bench layer`: float32, bf16")
SKEWS = flags.DEFINE_list("skews", ["uniform"], "of `bench layer`: uniform, zipf, one, empty")
MESH = flags.DEFINE_string("mesh", None, "devices by axis, as data:2,expert:4, or auto")
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0 of several, or auto")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "how many train together")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "which of them this one is, from 0")
COMPILE_FOR = flags.DEFINE_string(
    "compile-for", None, "a TPU slice that need not be there: v5e:4x4"
)
PROFILE = flags.DEFINE_string("profile", None, "first and last step of a profile, as 10:12")
WANDB = flags.DEFINE_string("wandb", None, "the Weights & Biases project that gets the metrics")
TOGETHER = (COORDINATOR, NUM_PROCESSES, PROCESS_ID)
OURS = (
    SIZE,
    ARMS,
    SEEDS,
    SET,
    WORKDIR,
    CHECKPOINTS,
    JOBS,
    PROFILE,
    WANDB,
    SHAPE,
    SKEWS,
    DTYPE,
    MESH,
    COMPILE_FOR,
    *TOGETHER,
)
