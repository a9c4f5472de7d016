//! Stats.

use crate::api::pod::v0 as api;
use crate::cgroup::stats::{Memory, Pressure, PressureLine, Sample};
use crate::pod::Pod;
use crate::pod::errors::PodError;
use crate::pod::network::Interface;
use crate::pod::stats::{self, ContainerSample, PodSample};
use crate::rpc::convert::container_id;

pub async fn serve(pod: &Pod, request: api::StatsRequest) -> Result<api::StatsResponse, PodError> {
    let ids = request.container_ids.into_iter().map(container_id).collect::<Result<Vec<_>, _>>()?;
    let containers = stats::containers(pod, ids).await;
    Ok(api::StatsResponse { pod: Some(pod_stats(stats::of_pod(pod).await)), containers: containers.into_iter().map(container).collect() })
}

fn container(sampled: ContainerSample) -> api::ContainerStats {
    api::ContainerStats {
        container_id: sampled.id,
        timestamp_ns: sampled.timestamp_ns,
        cpu: Some(cpu(&sampled.sample)),
        process_count: sampled.sample.process_count,
        memory: Some(memory(sampled.sample.memory)),
        writable_layer: Some(api::FilesystemStats { used_bytes: sampled.writable_layer.bytes, inodes_used: sampled.writable_layer.inodes }),
    }
}

fn pod_stats(sampled: PodSample) -> api::PodStats {
    api::PodStats {
        timestamp_ns: sampled.timestamp_ns,
        cpu: Some(cpu(&sampled.sample)),
        process_count: sampled.sample.process_count,
        memory: Some(memory(sampled.sample.memory)),
        interfaces: sampled.interfaces.into_iter().map(interface).collect(),
    }
}

fn cpu(sample: &Sample) -> api::CpuStats {
    api::CpuStats { usage_core_ns: sample.cpu_ns, pressure: sample.cpu_pressure.clone().map(pressure) }
}

fn memory(memory: Memory) -> api::MemoryStats {
    api::MemoryStats {
        usage_bytes: memory.usage,
        working_set_bytes: memory.working_set,
        rss_bytes: memory.rss,
        page_faults: memory.page_faults,
        major_page_faults: memory.major_page_faults,
        limit_bytes: memory.limit,
        swap_usage_bytes: memory.swap_usage,
        swap_limit_bytes: memory.swap_limit,
        pressure: memory.pressure.map(pressure),
    }
}

fn pressure(pressure: Pressure) -> api::PressureStats {
    api::PressureStats { some: Some(line(pressure.some)), full: Some(line(pressure.full)) }
}

fn line(line: PressureLine) -> api::PressureLine {
    api::PressureLine { total_ns: line.total_ns, avg10: line.avg10, avg60: line.avg60, avg300: line.avg300 }
}

fn interface(interface: Interface) -> api::InterfaceStats {
    api::InterfaceStats {
        name: interface.name,
        rx_bytes: interface.rx_bytes,
        rx_errors: interface.rx_errors,
        tx_bytes: interface.tx_bytes,
        tx_errors: interface.tx_errors,
        rx_packets: interface.rx_packets,
        tx_packets: interface.tx_packets,
        rx_dropped: interface.rx_dropped,
        tx_dropped: interface.tx_dropped,
    }
}
