package main

import (
	"context"

	"google.golang.org/grpc"
	internalapi "k8s.io/cri-api/pkg/apis"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// imageServer has a method for each that the API has, or it would not compile.
type imageServer struct {
	cri.UnsafeImageServiceServer
	lists[internalapi.ImageManagerService]
}

func (s *imageServer) ListImages(ctx context.Context, r *cri.ListImagesRequest) (*cri.ListImagesResponse, error) {
	images, err := s.unary.ListImages(ctx, r.Filter)
	return &cri.ListImagesResponse{Images: images}, err
}

func (s *imageServer) StreamImages(r *cri.StreamImagesRequest, stream grpc.ServerStreamingServer[cri.StreamImagesResponse]) error {
	images, err := s.streaming.ListImages(stream.Context(), r.Filter)
	return sendList(stream, &cri.StreamImagesResponse{Images: images}, err)
}

func (s *imageServer) ImageStatus(ctx context.Context, r *cri.ImageStatusRequest) (*cri.ImageStatusResponse, error) {
	return s.unary.ImageStatus(ctx, r.Image, r.Verbose)
}

func (s *imageServer) PullImage(ctx context.Context, r *cri.PullImageRequest) (*cri.PullImageResponse, error) {
	ref, err := s.unary.PullImage(ctx, r.Image, r.Auth, r.SandboxConfig)
	return &cri.PullImageResponse{ImageRef: ref}, err
}

func (s *imageServer) RemoveImage(ctx context.Context, r *cri.RemoveImageRequest) (*cri.RemoveImageResponse, error) {
	return &cri.RemoveImageResponse{}, s.unary.RemoveImage(ctx, r.Image)
}

func (s *imageServer) ImageFsInfo(ctx context.Context, _ *cri.ImageFsInfoRequest) (*cri.ImageFsInfoResponse, error) {
	return s.unary.ImageFsInfo(ctx)
}
