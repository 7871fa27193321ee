"""Programs that start other programs, and interpreters: which of their words are options.

Two tables. They say which options take the next word as their value, because only then can the
word behind them be found. Sources are the manuals of the programs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache


def _options(text: str) -> frozenset[str]:
    return frozenset(text.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """A program that starts the command behind it.

    Options in `takes` have their value in the next word, those in `takes_two` in the next two.
    Then come `operands` words that are the launcher's own, and with `assignments` any number of
    `NAME=value`. One of the words of `subcommands` has to follow the launcher, if there are some.
    `own_files` says that the command sees other files than we do, as in a container, `own_shell`
    that a shell reads it there. Behind one that `runs_python` stands a Python script, or `-m` and a
    module.
    """

    takes: frozenset[str] = frozenset()
    takes_two: frozenset[str] = frozenset()
    operands: int = 0
    assignments: bool = False
    subcommands: frozenset[str] = frozenset()
    own_files: bool = False
    own_shell: bool = False
    runs_python: bool = False


_MPI = Launcher(
    takes=_options(
        "-n -np -c -N -npernode --npernode -ppn -perhost -H -host --host -hosts -f -hostfile"
        " --hostfile -machinefile --machinefile -x --map-by --bind-to --rank-by --ntasks"
        " -wdir --wdir -wd -path --path --prefix --report-uri -genvlist -envlist -iface"
        " -launcher -bootstrap -rmk --timeout -timeout -output-filename"
        " --output-filename -bind-to -map-by"
    ),
    takes_two=_options("-mca --mca -gmca --gmca -genv -env"),
)
_TORCHRUN = Launcher(
    takes=_options(
        "--nnodes --nproc-per-node --nproc_per_node --rdzv-backend --rdzv_backend --rdzv-endpoint"
        " --rdzv_endpoint --rdzv-id --rdzv_id --rdzv-conf --rdzv_conf --max-restarts"
        " --max_restarts --monitor-interval --monitor_interval --start-method --start_method"
        " --role --log-dir --log_dir -r --redirects -t --tee --local-ranks-filter"
        " --local_ranks_filter --node-rank --node_rank --master-addr --master_addr --master-port"
        " --master_port --local-addr --local_addr --logs-specs --logs_specs"
    ),
    runs_python=True,
)
_ACCELERATE = Launcher(
    takes=_options(
        "--config_file --config-file --num_processes --num-processes --num_machines"
        " --num-machines --machine_rank --machine-rank --mixed_precision --mixed-precision"
        " --main_process_ip --main-process-ip --main_process_port --main-process-port --gpu_ids"
        " --gpu-ids --num_cpu_threads_per_process --num-cpu-threads-per-process"
        " --dynamo_backend --dynamo-backend --rdzv_backend --rdzv-backend --rdzv_conf --rdzv-conf"
        " --max_restarts --max-restarts --monitor_interval --monitor-interval --role --env"
        " --deepspeed_config_file --zero_stage --gradient_accumulation_steps --num_gpus"
    ),
    subcommands=frozenset({"launch"}),
    runs_python=True,
)
_DEEPSPEED = Launcher(
    takes=_options(
        "-H --hostfile -i --include -e --exclude --num_nodes --num_gpus --node_rank --master_addr"
        " --master_port --launcher --launcher_args --module_name --bind_core_list"
    ),
    runs_python=True,
)
_CONTAINER = Launcher(
    takes=_options(
        "-a --attach --add-host --annotation --blkio-weight --cap-add --cap-drop --cgroup-parent"
        " --cgroupns --cidfile -c --cpu-shares --cpuset-cpus --cpuset-mems --cpus --device --dns"
        " --entrypoint -e --env --env-file --expose --gpus --group-add -h --hostname --ip --ipc"
        " --isolation -l --label --link --log-driver --log-opt --mac-address -m --memory"
        " --memory-swap --mount --name --network --net --pid --pids-limit --platform -p --publish"
        " --pull --restart --runtime --security-opt --shm-size --stop-signal --stop-timeout"
        " --storage-opt --sysctl --tmpfs --ulimit -u --user --userns --uts -v --volume"
        " --volume-driver --volumes-from -w --workdir --arch --os --secret --annotation"
    ),
    operands=1,
    subcommands=frozenset({"run"}),
    own_files=True,
)
_APPTAINER = Launcher(
    takes=_options(
        "-B --bind -H --home -W --workdir --pwd --cwd -S --scratch --env --env-file --overlay -o"
        " --app --add-caps --drop-caps --apply-cgroups --dns --fuse-mount --hostname --mount"
        " --network --network-args --nvccli --security --pem-path --memory --cpus"
    ),
    operands=1,
    subcommands=frozenset({"exec", "run"}),
    own_files=True,
)
_CONDA = Launcher(
    takes=_options("-n --name -p --prefix --cwd -a --attach -e --env"),
    subcommands=frozenset({"run"}),
)
_SRUN = Launcher(
    takes=_options(
        "-A --account -n --ntasks -N --nodes -c --cpus-per-task -p --partition -t --time -J"
        " --job-name -G --gpus --gres --gpus-per-node --gpus-per-task --gpus-per-socket --mem"
        " --mem-per-cpu --mem-per-gpu --ntasks-per-node --ntasks-per-core --ntasks-per-gpu"
        " --ntasks-per-socket -o --output -e --error -i --input -w --nodelist -x --exclude -D"
        " --chdir -q --qos -m --distribution --export --cpu-bind --mem-bind --mpi -C --constraint"
        " -d --dependency -L --licenses -r --relative -M --clusters --reservation --signal -T"
        " --threads -W --wait -u --jobid --het-group --network --nice --open-mode --comment"
        " --accel-bind --container --container-image --container-mounts --tres-per-task"
    )
    - {"-u", "--nice"}
)

LAUNCHERS: Mapping[str, Launcher] = {
    "env": Launcher(
        takes=_options("-u --unset -C --chdir -a --argv0"),
        assignments=True,
    ),
    "nice": Launcher(takes=_options("-n --adjustment")),
    # `R CMD BATCH x.R` runs a tool of R; without CMD it is the interpreter
    "R": Launcher(subcommands=frozenset({"CMD"})),
    "ionice": Launcher(takes=_options("-c --class -n --classdata")),
    "nohup": Launcher(),
    "time": Launcher(takes=_options("-f --format -o --output")),
    "timeout": Launcher(takes=_options("-k --kill-after -s --signal"), operands=1),
    "gtimeout": Launcher(takes=_options("-k --kill-after -s --signal"), operands=1),
    "stdbuf": Launcher(takes=_options("-i --input -o --output -e --error")),
    "unbuffer": Launcher(),
    "setsid": Launcher(),
    "setarch": Launcher(operands=1),
    "chrt": Launcher(takes=_options("-T --sched-runtime -P -D"), operands=1),
    "taskset": Launcher(operands=1),
    "numactl": Launcher(
        takes=_options(
            "-i --interleave -m --membind -N --cpunodebind -C --physcpubind -p --preferred -P"
            " --preferred-many -w --weighted-interleave"
        )
    ),
    "prlimit": Launcher(),
    "flock": Launcher(takes=_options("-w --timeout -E --conflict-exit-code"), operands=1),
    "sudo": Launcher(
        takes=_options("-u --user -g --group -C -h --host -p --prompt -r -t -T -D --chdir -U -R"),
        assignments=True,
    ),
    "xvfb-run": Launcher(
        takes=_options(
            "-e --error-file -f --auth-file -n --server-num -p --xauth-protocol -s --server-args"
            " -w --wait"
        )
    ),
    "catchsegv": Launcher(),
    "caffeinate": Launcher(takes=_options("-t -w")),
    "ltrace": Launcher(takes=_options("-o -e -u")),
    "strace": Launcher(takes=_options("-o -e -s -u -E -P -a -b -I -O -S -X")),
    "valgrind": Launcher(),
    "perf": Launcher(
        takes=_options("-e --event -o --output -F -g --call-graph -r --repeat"),
        subcommands=frozenset({"stat", "record"}),
    ),
    "nsys": Launcher(
        takes=_options("-t --trace -o --output -s --sample -w -f --force-overwrite -d -y -c"),
        subcommands=frozenset({"profile"}),
    ),
    "ncu": Launcher(takes=_options("-o --export -k --kernel-name -c --launch-count --set")),
    "py-spy": Launcher(
        takes=_options("-o --output -r --rate -d --duration -f --format"),
        subcommands=frozenset({"record"}),
    ),
    "systemd-run": Launcher(takes=_options("-p --property -u --unit --slice -E --setenv -M")),
    "uv": Launcher(
        takes=_options(
            "--with --with-editable --with-requirements -p --python --project --directory"
            " --env-file --extra --group --only-group --no-group --index --default-index"
            " --index-url --extra-index-url --find-links -f --package -P --upgrade-package"
            " --cache-dir --config-file -w --color --resolution --refresh-package"
        ),
        subcommands=frozenset({"run"}),
        runs_python=True,
    ),
    "poetry": Launcher(
        takes=_options("-C --directory -P --project"), subcommands=frozenset({"run"})
    ),
    "pdm": Launcher(
        takes=_options("-p --project -s --site-packages --venv"), subcommands=frozenset({"run"})
    ),
    "rye": Launcher(takes=_options("--pyproject"), subcommands=frozenset({"run"})),
    "hatch": Launcher(takes=_options("-e --env -p --project"), subcommands=frozenset({"run"})),
    "pipenv": Launcher(takes=_options("--python --pypi-mirror"), subcommands=frozenset({"run"})),
    "pixi": Launcher(
        takes=_options("-e --environment --manifest-path -m --color"),
        subcommands=frozenset({"run"}),
    ),
    "conda": _CONDA,
    "mamba": _CONDA,
    "micromamba": _CONDA,
    "torchrun": _TORCHRUN,
    "accelerate": _ACCELERATE,
    "accelerate-launch": Launcher(takes=_ACCELERATE.takes, runs_python=True),
    "deepspeed": _DEEPSPEED,
    "horovodrun": Launcher(
        takes=_options("-np --num-proc -H --hosts -hostfile --hostfile -p --ssh-port")
    ),
    "coverage": Launcher(
        takes=_options("--rcfile --source --omit --include --data-file --context --concurrency"),
        subcommands=frozenset({"run"}),
        runs_python=True,
    ),
    "kernprof": Launcher(takes=_options("-o --outfile -s --setup"), runs_python=True),
    "viztracer": Launcher(
        takes=_options("-o --output_file --output_dir --max_stack_depth --tracer_entries"),
        runs_python=True,
    ),
    "mpirun": _MPI,
    "mpiexec": _MPI,
    "mpiexec.hydra": _MPI,
    "mpirun.openmpi": _MPI,
    "orterun": _MPI,
    "prterun": _MPI,
    "jsrun": Launcher(takes=_options("-n -a -c -g -r -l -d -b -E -h")),
    "aprun": Launcher(takes=_options("-n -N -d -S -j -cc -e -m")),
    "srun": _SRUN,
    "docker": _CONTAINER,
    "podman": _CONTAINER,
    "nerdctl": _CONTAINER,
    "apptainer": _APPTAINER,
    "singularity": _APPTAINER,
    "shifter": Launcher(takes=_options("--image --volume -V --workdir -w"), own_files=True),
    "ssh": Launcher(
        takes=_options("-b -c -D -E -e -F -I -i -J -L -l -m -O -o -p -Q -R -S -W -w -B"),
        operands=1,
        own_files=True,
        own_shell=True,
    ),
}
"""By base name."""

PYTHON_MODULES: Mapping[str, Launcher] = {
    "torch.distributed.run": _TORCHRUN,
    "torch.distributed.launch": _TORCHRUN,
    "torch.distributed.elastic.multiprocessing": _TORCHRUN,
    "accelerate.commands.launch": Launcher(takes=_ACCELERATE.takes, runs_python=True),
    "deepspeed.launcher.runner": _DEEPSPEED,
    "mpi4py": Launcher(runs_python=True),
    "mpi4py.futures": Launcher(runs_python=True),
    "mpi4py.run": Launcher(runs_python=True),
    "cProfile": Launcher(takes=_options("-o -s"), runs_python=True),
    "profile": Launcher(takes=_options("-o -s"), runs_python=True),
    "pdb": Launcher(takes=_options("-c"), runs_python=True),
    "trace": Launcher(takes=_options("-f --file -C --coverdir"), runs_python=True),
    "coverage": Launcher(
        takes=_options("--rcfile --source --omit --include --data-file --context --concurrency"),
        subcommands=frozenset({"run"}),
        runs_python=True,
    ),
    "debugpy": Launcher(
        takes=_options("--listen --connect --log-to --configure-subProcess"), runs_python=True
    ),
    "kernprof": Launcher(takes=_options("-o --outfile -s --setup"), runs_python=True),
    "line_profiler": Launcher(takes=_options("-o"), runs_python=True),
    "memory_profiler": Launcher(takes=_options("-o --precision"), runs_python=True),
    "scalene": Launcher(takes=_options("--outfile --cpu-percent-threshold"), runs_python=True),
    "viztracer": Launcher(takes=_options("-o --output_file"), runs_python=True),
}
"""Modules that `python -m` starts and that start a Python script themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """A program that executes a script.

    Options in `takes` have their value in the next word. Behind one of `code` stands code, behind
    one of `module` a module. `clusters` says that short options can be written together, the last
    one with a value: `-uc`. One of `subcommands` may follow the interpreter.
    """

    takes: frozenset[str] = frozenset()
    code: frozenset[str] = frozenset()
    module: frozenset[str] = frozenset()
    clusters: bool = False
    subcommands: frozenset[str] = frozenset()


_PYTHON = Interpreter(
    takes=_options("-W -X -Q --check-hash-based-pycs"),
    code=_options("-c"),
    module=_options("-m"),
    clusters=True,
)
_SHELL = Interpreter(
    takes=_options("-o +o -O +O --rcfile --init-file"), code=_options("-c"), clusters=True
)
_NODE = Interpreter(
    takes=_options("-r --require --import --loader --experimental-loader -C --conditions"),
    code=_options("-e --eval -p --print -pe"),
)

INTERPRETERS: Mapping[str, Interpreter] = {
    **dict.fromkeys(("bash", "sh", "dash", "zsh", "ksh", "fish"), _SHELL),
    "Rscript": Interpreter(code=_options("-e")),
    "R": Interpreter(takes=_options("-g --gui -d --debugger"), code=_options("-e")),
    "julia": Interpreter(
        takes=_options("-J --sysimage -H --home -C --cpu-target -t --threads -p --procs -L --load"),
        code=_options("-e --eval -E --print"),
    ),
    "node": _NODE,
    "nodejs": _NODE,
    "deno": Interpreter(
        takes=_options("-c --config --import-map --lock --env-file"),
        subcommands=frozenset({"run"}),
    ),
    "bun": Interpreter(
        takes=_options("-r --preload"),
        code=_options("-e --eval"),
        subcommands=frozenset({"run"}),
    ),
    "ts-node": _NODE,
    "tsx": _NODE,
    "perl": Interpreter(takes=_options("-I -x"), code=_options("-e -E"), clusters=True),
    "ruby": Interpreter(
        takes=_options("-I -r -C -E --encoding"), code=_options("-e"), clusters=True
    ),
    "lua": Interpreter(takes=_options("-l"), code=_options("-e")),
    "luajit": Interpreter(takes=_options("-l -j"), code=_options("-e")),
    "php": Interpreter(takes=_options("-d -c"), code=_options("-r")),
    "tclsh": Interpreter(),
    "expect": Interpreter(code=_options("-c")),
    "octave": Interpreter(takes=_options("-p --path --image-path"), code=_options("--eval")),
    "octave-cli": Interpreter(takes=_options("-p --path"), code=_options("--eval")),
    "matlab": Interpreter(takes=_options("-sd -logfile"), code=_options("-batch -r")),
    "guile": Interpreter(takes=_options("-L -C -l -e"), code=_options("-c")),
    "racket": Interpreter(takes=_options("-l -p -r -u -k"), code=_options("-e")),
}
"""By base name. Those of Python are told by how their names begin."""

PYTHONS = re.compile(r"(?:python|pypy|ipython)[0-9.]*w?(?:t|d)?\Z")
"""Base names of Pythons, whatever version follows; `python_train.py` is a script itself."""


@lru_cache(maxsize=1000)
def interpreter_of(program: str) -> Interpreter | None:
    base = os.path.basename(program)
    return _PYTHON if PYTHONS.match(base) else INTERPRETERS.get(base)


@lru_cache(maxsize=1000)
def launcher_of(program: str) -> Launcher | None:
    return LAUNCHERS.get(os.path.basename(program))
