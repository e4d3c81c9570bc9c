"""What a training will take, before any weight is fetched: parameters, memory, disk, time; and what fits."""
