import { kubeletScenarios } from "./scenarios.ts";

kubeletScenarios("microvm");
