import { kubeletScenarios } from "./scenarios.ts";

kubeletScenarios("flat");
