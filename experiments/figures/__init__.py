"""Every figure of a report, in its order. To add one: its file, and a line here.

Figures are no names of the registry: no flag and no setting asks for one, so `list`, the tables of
parts and the hints of mistakes should not know them. All that apply are drawn.
"""

FIGURES = (
    "experiments.figures.loss_curves:LossCurves",
    "experiments.figures.loss_by_length:LossByLength",
    "experiments.figures.loss_by_desk:LossByDesk",
    "experiments.figures.expert_load:ExpertLoad",
    "experiments.figures.desks_by_expert:DesksByExpert",
    "experiments.figures.loss_against_cost:LossAgainstCost",
    "experiments.figures.loss_against_compute:LossAgainstCompute",
)
