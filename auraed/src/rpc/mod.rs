//! One file per RPC: conversion and status mapping only.
