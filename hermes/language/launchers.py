"""Programs that start other programs, and interpreters: which of their words are options.

Two tables. They say which options take the next word as their value, because only then can the
word behind them be found. Sources are the manuals of the programs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import lru_cache

import msgspec


def _options(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _either(text: str) -> frozenset[str]:
    """Options that can be written with `_` and with `-`."""
    return _options(text) | _options(text.replace("_", "-"))


class Launcher(msgspec.Struct, frozen=True, kw_only=True):
    """A program that starts the command behind it.

    Options in `takes` have their value in the next word, those in `takes_two` in the next two.
    Then come `operands` words that are the launcher's own, and with `assignments` any number of
    `NAME=value`. One of the words of `subcommands` has to follow the launcher, if there are some,
    maybe behind one of `groups`. `own_files` says that the command sees other files than we do, as
    in a container, `own_shell` that a shell reads it there. Behind one that `runs_python` stands a
    Python script, or `-m` and a module.
    """

    takes: frozenset[str] = frozenset()
    takes_two: frozenset[str] = frozenset()
    operands: int = 0
    assignments: bool = False
    groups: frozenset[str] = frozenset()
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
        " --output-filename -bind-to -map-by -rf -rankfile --rankfile -xterm --xterm -am --am"
        " -tune --tune -stdin --stdin --output -cpus-per-proc --cpus-per-proc -cpus-per-rank"
        " --cpus-per-rank -cpu-set --cpu-set -cpu-list --cpu-list -slot-list --slot-list"
        " -default-hostfile --default-hostfile --max-restarts -tmpdir --tmpdir --pmixmca"
        " -usize -hostlist -outfile-pattern -errfile-pattern -prepend-pattern -order-nodes"
        " -topolib -configfile -envexcl -umask -gpath -gwdir -gumask"
    ),
    takes_two=_options("-mca --mca -gmca --gmca -genv -env"),
)
_TORCHRUN = Launcher(
    takes=_either(
        "--nnodes --nproc_per_node --rdzv_backend --rdzv_endpoint --rdzv_id --rdzv_conf"
        " --max_restarts --monitor_interval --start_method --role --log_dir -r --redirects -t --tee"
        " --local_ranks_filter --node_rank --master_addr --master_port --local_addr --logs_specs"
        " --numa_binding --event_log_handler --signals_to_handle --duplicate_stdout_filters"
        " --duplicate_stderr_filters"
    ),
    runs_python=True,
)
_ACCELERATE = Launcher(
    takes=_either(
        "--config_file --num_processes --num_machines --machine_rank --mixed_precision"
        " --main_process_ip --main_process_port --gpu_ids --num_cpu_threads_per_process"
        " --dynamo_backend --dynamo_mode --rdzv_backend --rdzv_conf --max_restarts"
        " --monitor_interval --role --env --num_gpus --main_training_function --log_dir --tee"
        " --vm --mpirun_hostfile --mpirun_ccl"
        " --deepspeed_config_file --zero_stage --gradient_accumulation_steps --gradient_clipping"
        " --zero3_init_flag --zero3_save_16bit_model --offload_optimizer_device"
        " --offload_param_device --offload_optimizer_nvme_path --offload_param_nvme_path"
        " --deepspeed_hostfile --deepspeed_exclusion_filter --deepspeed_inclusion_filter"
        " --deepspeed_multinode_launcher --deepspeed_moe_layer_cls_names --fsdp_version"
        " --fsdp_offload_params --fsdp_min_num_params --fsdp_sharding_strategy"
        " --fsdp_reshard_after_forward --fsdp_auto_wrap_policy --fsdp_state_dict_type"
        " --fsdp_transformer_layer_cls_to_wrap --fsdp_backward_prefetch --fsdp_forward_prefetch"
        " --fsdp_use_orig_params --fsdp_cpu_ram_efficient_loading --fsdp_sync_module_states"
        " --fsdp_activation_checkpointing --megatron_lm_tp_degree --megatron_lm_pp_degree"
        " --megatron_lm_num_micro_batches --megatron_lm_sequence_parallelism"
        " --megatron_lm_recompute_activations --megatron_lm_use_distributed_optimizer"
        " --megatron_lm_gradient_clipping --fp8_backend --fp8_format --fp8_opt_level"
    ),
    subcommands=frozenset({"launch"}),
    runs_python=True,
)
_DEEPSPEED = Launcher(
    takes=_options(
        "-H --hostfile -i --include -e --exclude --num_nodes --num_gpus --node_rank --master_addr"
        " --master_port --launcher --launcher_args --module_name --bind_core_list --ssh_port"
        " --min_elastic_nodes --max_elastic_nodes --autotuning --enable_each_rank_log --venv_script"
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
        " --volume-driver --volumes-from -w --workdir --arch --os --secret --annotation --context"
        " --device-cgroup-rule --device-read-bps --device-write-bps --dns-option --dns-search"
        " --health-cmd --health-interval --health-retries --health-timeout --ip6 --label-file"
        " --link-local-ip --memory-reservation --memory-swappiness --network-alias --oom-score-adj"
        " --log-level --cpu-period --cpu-quota --cpu-rt-period --cpu-rt-runtime --detach-keys"
        " --config --connection --url --root --variant --uidmap --gidmap --pod --systemd --timeout"
        " -f --file --project-name --profile --project-directory"
    ),
    operands=1,
    groups=frozenset({"container", "compose"}),
    subcommands=frozenset({"run", "exec"}),
    own_files=True,
)
_APPTAINER = Launcher(
    takes=_options(
        "-B --bind -H --home -W --workdir --pwd --cwd -S --scratch --env --env-file --overlay -o"
        " --app --add-caps --drop-caps --apply-cgroups --dns --fuse-mount --hostname --mount"
        " --network --network-args --security --pem-path --memory --cpus --shell --docker-username"
        " --docker-password --docker-host --cpu-shares --cpuset-cpus --cpuset-mems --memory-swap"
        " --memory-reservation --pids-limit --oom-score-adj --blkio-weight --authfile --config"
    ),
    operands=1,
    subcommands=frozenset({"exec", "run"}),
    own_files=True,
)
_CONDA = Launcher(
    takes=_options("-n --name -p --prefix --cwd -a --attach -e --env -r --root-prefix --rc-file"),
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
        " --container-workdir --container-name --container-env --cpu-freq --gpu-bind --gpu-freq"
        " --hint --mincpus --wckey --prolog --epilog -b --begin --mail-type --mail-user -B"
        " --extra-node-info -S --core-spec --thread-spec --task-prolog --task-epilog"
        " --cores-per-socket --sockets-per-node --threads-per-core --cpus-per-gpu --gres-flags"
        " --power --profile --bb --bbf --cluster-constraint --deadline --priority --slurmd-debug"
        " --switches --tmp --uid --gid --acctg-freq --delay-boot --tree-width -F --nodefile"
    )
    - {"-u", "--nice"}
)

_MEMRAY = Launcher(
    takes=_options("-o --output -p --live-port"), subcommands=frozenset({"run"}), runs_python=True
)
_PYINSTRUMENT = Launcher(
    takes=_options(
        "-o --outfile -r --renderer -p --render-option -i --interval --target-description"
        " --load --load-prev --hide --hide-regex --show --show-regex"
    ),
    runs_python=True,
)
_SCALENE = Launcher(
    takes=_options(
        "--outfile --cpu-percent-threshold --cpu-sampling-rate --profile-interval --program-path"
        " --profile-only --profile-exclude --malloc-threshold --allocation-sampling-window"
    ),
    runs_python=True,
)
_UV = _options(
    "--with --with-editable --with-requirements -p --python --project --directory --env-file"
    " --extra --no-extra --group --only-group --no-group --index --default-index --index-url"
    " --extra-index-url --find-links -f --package -P --upgrade-package --cache-dir --config-file -w"
    " --color --resolution --refresh-package --reinstall-package --link-mode --python-preference"
    " --python-platform --prerelease --fork-strategy --index-strategy --keyring-provider"
    " --exclude-newer --allow-insecure-host -C --config-setting --no-binary-package"
    " --no-build-package --no-build-isolation-package --from -c --constraints --overrides"
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
            "-i --interleave -m --membind -N --cpunodebind --cpubind -C --physcpubind -p"
            " --preferred -P --preferred-many -w --weighted-interleave"
        )
    ),
    "prlimit": Launcher(),
    "flock": Launcher(takes=_options("-w --timeout -E --conflict-exit-code"), operands=1),
    "sudo": Launcher(
        takes=_options("-u --user -g --group -C -h --host -p --prompt -r -t -T -D --chdir -U -R"),
        assignments=True,
    ),
    "doas": Launcher(takes=_options("-u -C -a")),
    "setpriv": Launcher(
        takes=_options("--reuid --regid --groups --inh-caps --bounding-set --ambient-caps")
    ),
    "unshare": Launcher(takes=_options("-R --root -w --wd -S --setuid -G --setgid")),
    "firejail": Launcher(),
    "cgexec": Launcher(takes=_options("-g")),
    "systemd-inhibit": Launcher(takes=_options("--what --who --why --mode")),
    "tini": Launcher(takes=_options("-p -e")),
    "dumb-init": Launcher(takes=_options("-r --rewrite")),
    "gdb": Launcher(takes=_options("-ex -iex -x -ix -d -cd -s")),
    "parallel": Launcher(
        takes=_options(
            "-j --jobs -P --max-procs -a --arg-file -n --max-args -N -L --max-lines -C --colsep -d"
            " --delimiter -S --sshlogin --joblog --results --retries --timeout --delay --halt"
            " --memfree --load --tmpdir --workdir --wd --tagstring"
        )
    ),
    "ibrun": Launcher(takes=_options("-n -o")),
    "lrun": Launcher(takes=_options("-n -N -T -c -g")),
    "flux": Launcher(
        takes=_options(
            "-n --ntasks -N --nodes -c --cores-per-task -g --gpus-per-task -t --time-limit -q"
            " --queue --env --output --error --job-name -o --setopt --cwd --requires"
        ),
        subcommands=frozenset({"run"}),
    ),
    **dict.fromkeys(
        ("pyenv", "rbenv", "asdf", "bundle"), Launcher(subcommands=frozenset({"exec"}))
    ),
    "direnv": Launcher(subcommands=frozenset({"exec"}), operands=1),
    "dotenv": Launcher(takes=_options("-f --file"), subcommands=frozenset({"run"})),
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
        takes=_options(
            "-e --event -o --output -F --freq --call-graph -r --repeat -c --count -m --mmap-pages"
            " -C --cpu -j --branch-filter -I -D --delay -x --field-separator"
        ),
        subcommands=frozenset({"stat", "record"}),
    ),
    "nsys": Launcher(
        takes=_options("-t --trace -o --output -s --sample -w -f --force-overwrite -d -y -c"),
        subcommands=frozenset({"profile"}),
    ),
    "ncu": Launcher(
        takes=_options(
            "-o --export -k --kernel-name --kernel-name-base --kernel-id -c --launch-count -s"
            " --launch-skip --set --section --metrics --target-processes --clock-control"
            " --cache-control --replay-mode --log-file --nvtx-include --nvtx-exclude"
        )
    ),
    "py-spy": Launcher(
        takes=_options("-o --output -r --rate -d --duration -f --format"),
        subcommands=frozenset({"record"}),
    ),
    "systemd-run": Launcher(takes=_options("-p --property -u --unit --slice -E --setenv -M")),
    "uv": Launcher(
        takes=_UV, groups=frozenset({"tool"}), subcommands=frozenset({"run"}), runs_python=True
    ),
    "uvx": Launcher(takes=_UV),
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
    "memray": _MEMRAY,
    "pyinstrument": _PYINSTRUMENT,
    "scalene": _SCALENE,
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
    "docker-compose": _CONTAINER,
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
    "accelerate.commands.accelerate_cli": _ACCELERATE,
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
    "scalene": _SCALENE,
    "memray": _MEMRAY,
    "pyinstrument": _PYINSTRUMENT,
    "IPython": Launcher(runs_python=True),
    "viztracer": Launcher(takes=_options("-o --output_file"), runs_python=True),
}
"""Modules that `python -m` starts and that start a Python script themselves."""


class Interpreter(msgspec.Struct, frozen=True, kw_only=True):
    """A program that executes a script.

    Options in `takes` have their value in the next word. Behind one of `code` stands code, behind
    one of `module` a module. `clusters` says that short options can be written together, the last
    one with a value: `-uc`. One of `subcommands` may follow the interpreter. Behind `arguments`
    stand those of the script, whichever option names the script.
    """

    takes: frozenset[str] = frozenset()
    code: frozenset[str] = frozenset()
    module: frozenset[str] = frozenset()
    clusters: bool = False
    subcommands: frozenset[str] = frozenset()
    arguments: str = ""


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
    "R": Interpreter(
        takes=_options("-g --gui -d --debugger"), code=_options("-e"), arguments="--args"
    ),
    "julia": Interpreter(
        takes=_options(
            "-J --sysimage -H --home -C --cpu-target -t --threads -p --procs -L --load --bind-to"
            " --machine-file --startup-file --check-bounds --depwarn --inline --math-mode"
            " --heap-size-hint --compiled-modules --pkgimages --history-file --color --gcthreads"
        ),
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


def is_shell(program: str) -> bool:
    return interpreter_of(program) is _SHELL


@lru_cache(maxsize=1000)
def launcher_of(program: str) -> Launcher | None:
    return LAUNCHERS.get(os.path.basename(program))
