"""What ``--help`` says below the options: examples of each command, and the exit codes."""

from typing import Final

EXIT_CODES: Final = """\
exit codes:
  0    done (report --check: all is up to date)
  1    an error, told on one line (report --check: something is stale)
  2    wrong usage
  3    a model failed or a check did not hold: its row says why, the others were measured
  4    compare: something became worse than the tolerance lets pass
  130  interrupted: what was measured is kept
"""

EXAMPLES: Final = {
    "run": """\
examples:
  python -m bench run                               every model in the store
  python -m bench run --models simple_cnn --quick   a first look, in seconds
  python -m bench run --data cifar10-images.tar.xz --device cuda
""",
    "load": """\
examples:
  python -m bench load                              starts the service for each model in turn
  python -m bench load --model simple_cnn --users 32 --seconds 60
  python -m bench load --url http://server:3000     a service that is already running
  python -m bench load --model simple_cnn --html locust.html --processes 2
  python -m bench load --users 32 --rate 200        an open loop: Poisson arrivals, 200/s
  python -m bench load --ceiling                    what the generators themselves can do
""",
    "verify": """\
examples:
  python -m bench verify                            starts the service for each model in turn
  python -m bench verify --model simple_cnn --url http://server:3000
""",
    "scenarios": """\
examples:
  python -m bench scenarios                         every model, in process and over HTTP
  python -m bench scenarios --models simple_cnn --quick --in-process
  python -m bench scenarios --http --url http://server:3000 --bound-ms 10
""",
    "robustness": """\
examples:
  python -m bench robustness                        every model, 2,000 test images, 25 copies each
  python -m bench robustness --models simple_cnn --images 10000
""",
    "resources": """\
examples:
  python -m bench resources
  python -m bench resources --models simple_cnn --device cuda
""",
    "chaos": """\
examples:
  python -m bench chaos                             all trials; the soak alone takes half an hour
  python -m bench chaos --resume                    go on with the newest session
  python -m bench chaos kill reload bombs large     a few minutes
  python -m bench chaos fuzz --inputs 100000
  python -m bench chaos soak --minutes 30
""",
    "peers": """\
examples:
  python -m bench peers                             every peer, five rounds, about half an hour
  python -m bench peers --resume                    go on with the newest session
  python -m bench peers --peers ours fastapi triton --rounds 3
  python -m bench peers --quick                     a second each, two rounds: to see that all works

Peers: see bench/peers/catalogue.py. Each gets an environment of its own, made once, under
CIFAR10_CACHE/peers; one that cannot be installed or run is a row that says why.
""",
    "bulk": """\
examples:
  python -m bench bulk                              256 images a request, every model in the store
  python -m bench bulk --resume                     go on with the newest session
  python -m bench bulk --quick                      half a second each: to see that all works
  python -m bench bulk --models simple_cnn --images 64 --rounds 3
""",
    "settings": """\
examples:
  python -m bench settings                          the default model on one core and on all
  python -m bench settings --model simple_cnn --rounds 5
  python -m bench settings --device cuda
""",
    "report": """\
examples:
  python -m bench report                            REPORT.md, report.html, README's table, CSV
  python -m bench report --check                    only say whether they are up to date
""",
    "all": """\
examples:
  python -m bench all                               every model, then the report
  python -m bench all --resume                      go on with the newest session
  python -m bench all --full compact_seed1          that one in every way too
  python -m bench all --models simple_cnn --quick
""",
    "sensitivity": """\
examples:
  python -m bench sensitivity                       the server's default model; ten minutes
  python -m bench sensitivity --model simple_cnn --rounds 80

The rows of every run stay in tmp/sensitivity, one folder a side:
  python -m bench compare tmp/sensitivity/baseline tmp/sensitivity/slower_server
""",
    "compare": """\
examples:
  python -m bench compare baseline/ results/        two folders; exit code 4 on a regression
  python -m bench compare 3f2a91c0 a77e01d2         two runs of this folder (see: bench ls)
  python -m bench compare 3f2a,77b0,c041 a77e,19fd,e220 --tolerance 5
                                                    three runs a side, taken in turn: the best way

To see that it works here: measure an unchanged service a few times, then a slower one.
  for i in 1 2 3; do python -m bench load --results a; python -m bench load --results b; done
  python -m bench compare a b                       the same: exit code 0
""",
    "show": """\
examples:
  python -m bench show simple_cnn                   all rows of a model
  python -m bench show 3f2a91c0 --json              all rows of a run, with every sample
""",
    "ls": """\
examples:
  python -m bench ls
  python -m bench ls --results /media/usb/results
""",
}
