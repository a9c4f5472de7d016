package main

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	internalapi "k8s.io/cri-api/pkg/apis"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	client "k8s.io/cri-client/pkg"
	"k8s.io/utils/exec"
)

// runtimeServer has a method for each that the API has, or it would not compile.
type runtimeServer struct {
	cri.UnsafeRuntimeServiceServer
	lists[internalapi.RuntimeService]
}

func (s *runtimeServer) Version(ctx context.Context, r *cri.VersionRequest) (*cri.VersionResponse, error) {
	return s.unary.Version(ctx, r.Version)
}

func (s *runtimeServer) Status(ctx context.Context, r *cri.StatusRequest) (*cri.StatusResponse, error) {
	return s.unary.Status(ctx, r.Verbose)
}

func (s *runtimeServer) RuntimeConfig(ctx context.Context, _ *cri.RuntimeConfigRequest) (*cri.RuntimeConfigResponse, error) {
	return s.unary.RuntimeConfig(ctx)
}

func (s *runtimeServer) UpdateRuntimeConfig(ctx context.Context, r *cri.UpdateRuntimeConfigRequest) (*cri.UpdateRuntimeConfigResponse, error) {
	return &cri.UpdateRuntimeConfigResponse{}, s.unary.UpdateRuntimeConfig(ctx, r.RuntimeConfig)
}

func (s *runtimeServer) RunPodSandbox(ctx context.Context, r *cri.RunPodSandboxRequest) (*cri.RunPodSandboxResponse, error) {
	id, err := s.unary.RunPodSandbox(ctx, r.Config, r.RuntimeHandler)
	return &cri.RunPodSandboxResponse{PodSandboxId: id}, err
}

func (s *runtimeServer) StopPodSandbox(ctx context.Context, r *cri.StopPodSandboxRequest) (*cri.StopPodSandboxResponse, error) {
	return &cri.StopPodSandboxResponse{}, s.unary.StopPodSandbox(ctx, r.PodSandboxId)
}

func (s *runtimeServer) RemovePodSandbox(ctx context.Context, r *cri.RemovePodSandboxRequest) (*cri.RemovePodSandboxResponse, error) {
	return &cri.RemovePodSandboxResponse{}, s.unary.RemovePodSandbox(ctx, r.PodSandboxId)
}

func (s *runtimeServer) PodSandboxStatus(ctx context.Context, r *cri.PodSandboxStatusRequest) (*cri.PodSandboxStatusResponse, error) {
	return s.unary.PodSandboxStatus(ctx, r.PodSandboxId, r.Verbose)
}

func (s *runtimeServer) ListPodSandbox(ctx context.Context, r *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	items, err := s.unary.ListPodSandbox(ctx, r.Filter)
	return &cri.ListPodSandboxResponse{Items: items}, err
}

func (s *runtimeServer) StreamPodSandboxes(r *cri.StreamPodSandboxesRequest, stream grpc.ServerStreamingServer[cri.StreamPodSandboxesResponse]) error {
	items, err := s.streaming.ListPodSandbox(stream.Context(), r.Filter)
	return sendList(stream, &cri.StreamPodSandboxesResponse{PodSandboxes: items}, err)
}

func (s *runtimeServer) UpdatePodSandboxResources(ctx context.Context, r *cri.UpdatePodSandboxResourcesRequest) (*cri.UpdatePodSandboxResourcesResponse, error) {
	return s.unary.UpdatePodSandboxResources(ctx, r)
}

func (s *runtimeServer) PortForward(ctx context.Context, r *cri.PortForwardRequest) (*cri.PortForwardResponse, error) {
	return s.unary.PortForward(ctx, r)
}

func (s *runtimeServer) CreateContainer(ctx context.Context, r *cri.CreateContainerRequest) (*cri.CreateContainerResponse, error) {
	id, err := s.unary.CreateContainer(ctx, r.PodSandboxId, r.Config, r.SandboxConfig)
	return &cri.CreateContainerResponse{ContainerId: id}, err
}

func (s *runtimeServer) StartContainer(ctx context.Context, r *cri.StartContainerRequest) (*cri.StartContainerResponse, error) {
	return &cri.StartContainerResponse{}, s.unary.StartContainer(ctx, r.ContainerId)
}

func (s *runtimeServer) StopContainer(ctx context.Context, r *cri.StopContainerRequest) (*cri.StopContainerResponse, error) {
	return &cri.StopContainerResponse{}, s.unary.StopContainer(ctx, r.ContainerId, r.Timeout)
}

func (s *runtimeServer) RemoveContainer(ctx context.Context, r *cri.RemoveContainerRequest) (*cri.RemoveContainerResponse, error) {
	return &cri.RemoveContainerResponse{}, s.unary.RemoveContainer(ctx, r.ContainerId)
}

func (s *runtimeServer) ContainerStatus(ctx context.Context, r *cri.ContainerStatusRequest) (*cri.ContainerStatusResponse, error) {
	return s.unary.ContainerStatus(ctx, r.ContainerId, r.Verbose)
}

func (s *runtimeServer) ListContainers(ctx context.Context, r *cri.ListContainersRequest) (*cri.ListContainersResponse, error) {
	containers, err := s.unary.ListContainers(ctx, r.Filter)
	return &cri.ListContainersResponse{Containers: containers}, err
}

func (s *runtimeServer) StreamContainers(r *cri.StreamContainersRequest, stream grpc.ServerStreamingServer[cri.StreamContainersResponse]) error {
	containers, err := s.streaming.ListContainers(stream.Context(), r.Filter)
	return sendList(stream, &cri.StreamContainersResponse{Containers: containers}, err)
}

func (s *runtimeServer) UpdateContainerResources(ctx context.Context, r *cri.UpdateContainerResourcesRequest) (*cri.UpdateContainerResourcesResponse, error) {
	resources := &cri.ContainerResources{Linux: r.Linux, Windows: r.Windows}
	return &cri.UpdateContainerResourcesResponse{}, s.unary.UpdateContainerResources(ctx, r.ContainerId, resources)
}

func (s *runtimeServer) ReopenContainerLog(ctx context.Context, r *cri.ReopenContainerLogRequest) (*cri.ReopenContainerLogResponse, error) {
	return &cri.ReopenContainerLogResponse{}, s.unary.ReopenContainerLog(ctx, r.ContainerId)
}

// ExecSync turns back what the library makes errors of.
func (s *runtimeServer) ExecSync(ctx context.Context, r *cri.ExecSyncRequest) (*cri.ExecSyncResponse, error) {
	stdout, stderr, err := s.unary.ExecSync(ctx, r.ContainerId, r.Cmd, time.Duration(r.Timeout)*time.Second)
	answer := &cri.ExecSyncResponse{Stdout: stdout, Stderr: stderr}
	if exit, ok := errors.AsType[exec.CodeExitError](err); ok {
		answer.ExitCode = int32(exit.Code)
		return answer, nil
	}
	if errors.Is(err, client.ErrCommandTimedOut) {
		return nil, status.Error(codes.DeadlineExceeded, err.Error())
	}
	return answer, err
}

func (s *runtimeServer) Exec(ctx context.Context, r *cri.ExecRequest) (*cri.ExecResponse, error) {
	return s.unary.Exec(ctx, r)
}

func (s *runtimeServer) Attach(ctx context.Context, r *cri.AttachRequest) (*cri.AttachResponse, error) {
	return s.unary.Attach(ctx, r)
}

func (s *runtimeServer) ContainerStats(ctx context.Context, r *cri.ContainerStatsRequest) (*cri.ContainerStatsResponse, error) {
	stats, err := s.unary.ContainerStats(ctx, r.ContainerId)
	return &cri.ContainerStatsResponse{Stats: stats}, err
}

func (s *runtimeServer) ListContainerStats(ctx context.Context, r *cri.ListContainerStatsRequest) (*cri.ListContainerStatsResponse, error) {
	stats, err := s.unary.ListContainerStats(ctx, r.Filter)
	return &cri.ListContainerStatsResponse{Stats: stats}, err
}

func (s *runtimeServer) StreamContainerStats(r *cri.StreamContainerStatsRequest, stream grpc.ServerStreamingServer[cri.StreamContainerStatsResponse]) error {
	stats, err := s.streaming.ListContainerStats(stream.Context(), r.Filter)
	return sendList(stream, &cri.StreamContainerStatsResponse{ContainerStats: stats}, err)
}

func (s *runtimeServer) PodSandboxStats(ctx context.Context, r *cri.PodSandboxStatsRequest) (*cri.PodSandboxStatsResponse, error) {
	stats, err := s.unary.PodSandboxStats(ctx, r.PodSandboxId)
	return &cri.PodSandboxStatsResponse{Stats: stats}, err
}

func (s *runtimeServer) ListPodSandboxStats(ctx context.Context, r *cri.ListPodSandboxStatsRequest) (*cri.ListPodSandboxStatsResponse, error) {
	stats, err := s.unary.ListPodSandboxStats(ctx, r.Filter)
	return &cri.ListPodSandboxStatsResponse{Stats: stats}, err
}

func (s *runtimeServer) StreamPodSandboxStats(r *cri.StreamPodSandboxStatsRequest, stream grpc.ServerStreamingServer[cri.StreamPodSandboxStatsResponse]) error {
	stats, err := s.streaming.ListPodSandboxStats(stream.Context(), r.Filter)
	return sendList(stream, &cri.StreamPodSandboxStatsResponse{PodSandboxStats: stats}, err)
}

func (s *runtimeServer) ListMetricDescriptors(ctx context.Context, _ *cri.ListMetricDescriptorsRequest) (*cri.ListMetricDescriptorsResponse, error) {
	descriptors, err := s.unary.ListMetricDescriptors(ctx)
	return &cri.ListMetricDescriptorsResponse{Descriptors: descriptors}, err
}

func (s *runtimeServer) ListPodSandboxMetrics(ctx context.Context, _ *cri.ListPodSandboxMetricsRequest) (*cri.ListPodSandboxMetricsResponse, error) {
	metrics, err := s.unary.ListPodSandboxMetrics(ctx)
	return &cri.ListPodSandboxMetricsResponse{PodMetrics: metrics}, err
}

func (s *runtimeServer) StreamPodSandboxMetrics(_ *cri.StreamPodSandboxMetricsRequest, stream grpc.ServerStreamingServer[cri.StreamPodSandboxMetricsResponse]) error {
	metrics, err := s.streaming.ListPodSandboxMetrics(stream.Context())
	return sendList(stream, &cri.StreamPodSandboxMetricsResponse{PodSandboxMetrics: metrics}, err)
}

// GetContainerEvents tells that the stream is open when the runtime has said so. The library waits until each event is taken, so that a slow
// client slows the library down.
func (s *runtimeServer) GetContainerEvents(_ *cri.GetEventsRequest, stream grpc.ServerStreamingServer[cri.ContainerEventResponse]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	events := make(chan *cri.ContainerEventResponse)
	var ended error
	go func() {
		defer close(events)
		ended = s.unary.GetContainerEvents(ctx, events, func(source cri.RuntimeService_GetContainerEventsClient) {
			if _, err := source.Header(); err == nil {
				stream.SendHeader(nil)
			}
		})
	}()
	defer func() {
		cancel()
		for range events {
		}
	}()
	for event := range events {
		if err := stream.Send(event); err != nil {
			return err
		}
	}
	return ended
}

func (s *runtimeServer) CheckpointContainer(ctx context.Context, r *cri.CheckpointContainerRequest) (*cri.CheckpointContainerResponse, error) {
	return &cri.CheckpointContainerResponse{}, s.unary.CheckpointContainer(ctx, r)
}

func (s *runtimeServer) CheckpointPod(ctx context.Context, r *cri.CheckpointPodRequest) (*cri.CheckpointPodResponse, error) {
	return &cri.CheckpointPodResponse{}, s.unary.CheckpointPod(ctx, r)
}

func (s *runtimeServer) RestorePod(ctx context.Context, r *cri.RestorePodRequest) (*cri.RestorePodResponse, error) {
	return s.unary.RestorePod(ctx, r)
}
