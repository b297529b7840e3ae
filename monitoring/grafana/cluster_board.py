"""The machines, as Ray measures them, and the processes of our runs on them."""

from monitoring.grafana.board_builder import Board, Panel, Query, Row

RATE = "[$__rate_interval]"

CLUSTER = Board(
    "cluster",
    "AlphaFuse: cluster",
    (
        Row(
            "Machines",
            (
                Panel(
                    "Machines that answer",
                    (Query('up{job="ray"}', "{{instance}}"),),
                    "Whether each machine serves Ray's metrics.",
                    kind="yes_no",
                ),
                Panel("CPUs", (Query("ray_node_cpu_count", "{{instance}}"),), "CPUs of each machine.", kind="numbers"),
                Panel(
                    "Ray's processes in use",
                    (Query('sum by (State) (ray_resources{Name="CPU"})', "CPUs {{State}}"),),
                    "CPUs that tasks and actors have reserved, and those left.",
                    kind="numbers",
                ),
                Panel(
                    "CPU",
                    (Query("ray_node_cpu_utilization", "{{instance}}"),),
                    "Share of the CPUs in use.",
                    unit="percent",
                ),
                Panel(
                    "Memory",
                    (
                        Query("ray_node_mem_used", "{{instance}} used"),
                        Query("ray_node_mem_total", "{{instance}} total"),
                    ),
                    "When a machine's memory is nearly full, Ray kills workers.",
                    unit="bytes",
                ),
                Panel(
                    "Disk",
                    (Query("ray_node_disk_utilization_percentage", "{{instance}}"),),
                    "The alert DiskNearlyFull fires above 90 %.",
                    unit="percent",
                ),
                Panel(
                    "Network",
                    (
                        Query("ray_node_network_receive_speed", "{{instance}} in"),
                        Query("ray_node_network_send_speed", "{{instance}} out"),
                    ),
                    "Traffic between machines; traffic within a machine is not counted.",
                    unit="Bps",
                ),
                Panel(
                    "Reading and writing",
                    (
                        Query("ray_node_disk_io_read_speed", "{{instance}} read"),
                        Query("ray_node_disk_io_write_speed", "{{instance}} written"),
                    ),
                    "Traffic of the disks.",
                    unit="Bps",
                ),
                Panel(
                    "Object store",
                    (Query("sum by (instance) (ray_object_store_memory)", "{{instance}}"),),
                    "Ray's shared memory.",
                    unit="bytes",
                ),
                Panel(
                    "GPUs in use",
                    (Query("ray_node_gpus_utilization", "{{instance}} GPU {{GpuIndex}}", "gpu"),),
                    "Utilization of each GPU.",
                    unit="percent",
                ),
                Panel(
                    "GPU memory",
                    (Query("ray_node_gram_used", "{{instance}} GPU {{GpuIndex}}", "gpu"),),
                    "GPU memory in use, in MiB.",
                    unit="mbytes",
                ),
                Panel(
                    "Actors",
                    (Query("sum by (State) (ray_gcs_actors_count)", "{{State}}"),),
                    "Ray's long-lived processes: workers, engines, queues.",
                ),
            ),
        ),
        Row(
            "Processes of the runs",
            (
                Panel(
                    "CPUs in use",
                    (
                        Query(
                            f'rate(process_cpu_seconds_total{{job="alphafuse", run=~"$run"}}{RATE})',
                            "{{role}} {{stage}} {{worker}}",
                        ),
                    ),
                    "Cores that each process keeps busy.",
                ),
                Panel(
                    "Memory",
                    (
                        Query(
                            'process_resident_memory_bytes{job="alphafuse", run=~"$run"}',
                            "{{role}} {{stage}} {{worker}}",
                        ),
                    ),
                    "Resident memory of each process.",
                    unit="bytes",
                ),
                Panel(
                    "Open files",
                    (Query('process_open_fds{job="alphafuse", run=~"$run"}', "{{role}} {{stage}} {{worker}}"),),
                    "Files and connections of each process.",
                ),
            ),
        ),
    ),
)
