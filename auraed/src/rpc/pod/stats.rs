//! Stats.

use crate::api::pod::v0 as api;
use crate::cgroup::detail::{Device, Hugetlb};
use crate::cgroup::stats::{Cpu, Memory, Pressure, PressureLine};
use crate::pod::Pod;
use crate::pod::errors::PodError;
use crate::pod::network::Interface;
use crate::pod::stats::{self, ContainerSample, Detailed, PodSample};
use crate::pod::usage::{Layer, device_name};
use crate::rpc::convert::container_id;

pub async fn serve(pod: &Pod, request: api::StatsRequest) -> Result<api::StatsResponse, PodError> {
    let ids = request.container_ids.into_iter().map(container_id).collect::<Result<Vec<_>, _>>()?;
    let containers = stats::containers(pod, ids, request.detailed).await;
    let whole = stats::of_pod(pod, request.detailed).await;
    Ok(api::StatsResponse { pod: Some(pod_stats(whole)), containers: containers.into_iter().map(container).collect() })
}

fn container(sampled: ContainerSample) -> api::ContainerStats {
    api::ContainerStats {
        container_id: sampled.id,
        timestamp_ns: sampled.timestamp_ns,
        cpu: Some(cpu(sampled.sample.cpu)),
        process_count: sampled.sample.process_count,
        memory: Some(memory(sampled.sample.memory)),
        writable_layer: Some(file_system(sampled.writable_layer)),
        detail: sampled.detail.map(detail),
    }
}

fn pod_stats(sampled: PodSample) -> api::PodStats {
    api::PodStats {
        timestamp_ns: sampled.timestamp_ns,
        cpu: Some(cpu(sampled.sample.cpu)),
        process_count: sampled.sample.process_count,
        memory: Some(memory(sampled.sample.memory)),
        interfaces: sampled.interfaces.into_iter().map(interface).collect(),
        detail: sampled.detail.map(detail),
    }
}

fn cpu(cpu: Cpu) -> api::CpuStats {
    api::CpuStats {
        usage_core_ns: cpu.usage_ns,
        pressure: cpu.pressure.map(pressure),
        user_ns: cpu.user_ns,
        system_ns: cpu.system_ns,
        throttling: cpu.throttling.map(|seen| api::ThrottlingStats {
            periods: seen.periods,
            throttled_periods: seen.throttled_periods,
            throttled_ns: seen.throttled_ns,
        }),
    }
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
        cache_bytes: memory.cache,
        mapped_file_bytes: memory.mapped_file,
        kernel_bytes: memory.kernel,
        max_usage_bytes: memory.max_usage,
        limit_hits: memory.limit_hits,
        reservation_bytes: memory.reservation,
    }
}

fn file_system(layer: Layer) -> api::FilesystemStats {
    api::FilesystemStats {
        used_bytes: layer.usage.bytes,
        inodes_used: layer.usage.inodes,
        capacity_bytes: layer.capacity_bytes,
        inodes_total: layer.inodes_total,
        inodes_free: layer.inodes_free,
        device: layer.device,
    }
}

fn detail(seen: Detailed) -> api::DetailedStats {
    api::DetailedStats {
        devices: seen.cgroup.devices.into_iter().map(device).collect(),
        io_pressure: seen.cgroup.io_pressure.map(pressure),
        hugetlb: seen.cgroup.hugetlb.into_iter().map(hugetlb).collect(),
        threads: seen.cgroup.threads,
        thread_limit: seen.cgroup.thread_limit,
        open_files: seen.descriptors.open,
        sockets: seen.descriptors.sockets,
        open_file_limit: seen.open_file_limit,
        oom_kills: seen.cgroup.oom_kills,
    }
}

fn device(device: Device) -> api::DeviceStats {
    api::DeviceStats {
        name: device_name(device.major, device.minor),
        major: device.major,
        minor: device.minor,
        read_bytes: device.read_bytes,
        write_bytes: device.write_bytes,
        reads: device.reads,
        writes: device.writes,
    }
}

fn hugetlb(pages: Hugetlb) -> api::HugetlbStats {
    api::HugetlbStats { page_size: pages.page_size, usage_bytes: pages.usage, max_usage_bytes: pages.max_usage }
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
