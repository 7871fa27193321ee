"""The example of the tutorial page: its hermes file, its settings and the file that both scripts
use.
"""

from __future__ import annotations

EXAMPLE = """\
PRE
threads:2
STD-H
-ca networks/cnn.py
STD-E
-gamma 0.995
--env cartpole
EXEC
[[python, train_dqn.py, -lr 0.001],[-ca train_dqn.py]]
[[python, train_ac.py, -lr_actor 0.003 -lr_critic 0.001],[-ca train_ac.py]]
"""

SETTINGS = "path_to_experiments:”.”\n"

CNN = 'LAYERS = [8, 4, 4]\n"""The channels of the convolutions."""\n'
